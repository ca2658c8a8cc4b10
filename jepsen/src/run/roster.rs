//! What the nemesis and the operator of a run (`churn/`) have to know of each other: who votes where
//! at the moment, whom the one has hit, and whom the other has killed.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::MutexGuard as Held;

use crate::run::status::Placement;

/// Shared by both.
#[derive(Debug, Default)]
pub struct Roster {
    state: Mutex<State>,
    hands: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    placement: Placement,
    /// Orders are under way, or a group is on its way somewhere.
    moving: bool,
    struck: BTreeSet<usize>,
    dead: BTreeSet<usize>,
}

impl Roster {
    /// Nobody is hit.
    #[must_use]
    pub fn new(placement: Placement) -> Roster {
        Roster { state: Mutex::new(State { placement, ..State::default() }), ..Roster::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held by whoever decides whom to hit, until that is done; and by whoever starts a node
    /// that was away, or ends one for good. So nobody is hit who is not there any more.
    pub async fn hands(&self) -> Held<'_, ()> {
        self.hands.lock().await
    }

    /// Who voted where when somebody last looked.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.state().placement.clone()
    }

    /// Somebody has looked. `moving`: it will not stay so.
    pub fn set_placement(&self, placement: Placement, moving: bool) {
        let mut state = self.state();
        (state.placement, state.moving) = (placement, moving);
    }

    /// Whether each group has a majority outside of `broken`, and none is about to get another one.
    #[must_use]
    pub fn has_majority(&self, broken: &BTreeSet<usize>) -> bool {
        let state = self.state();
        !state.moving && state.placement.has_majority(broken)
    }

    /// The nodes that the nemesis keeps from taking part.
    #[must_use]
    pub fn struck(&self) -> BTreeSet<usize> {
        self.state().struck.clone()
    }

    /// The nemesis keeps these from taking part, and no others.
    pub fn set_struck(&self, places: BTreeSet<usize>) {
        self.state().struck = places;
    }

    /// Nodes that the operator has killed, and nobody is to start.
    #[must_use]
    pub fn dead(&self) -> BTreeSet<usize> {
        self.state().dead.clone()
    }

    /// The operator has killed a node, or is done with it.
    pub fn set_dead(&self, place: usize, dead: bool) {
        let mut state = self.state();
        if dead {
            state.dead.insert(place);
        } else {
            state.dead.remove(&place);
        }
    }
}
