//! What a fault does, as a list of steps: printed, done, undone.

use std::any::Any;
use std::fmt;

use crate::fault::{FaultError, Target};

/// One thing to do. It prints as what it does, in words of a shell where there are some.
pub trait Step: fmt::Display + fmt::Debug + Send + Sync {
    /// Does it. What has to go on until the fault is healed is kept in `held`.
    ///
    /// # Errors
    ///
    /// When it could not be done.
    fn run(&self, held: &mut Held) -> Result<(), FaultError>;
}

/// What goes on until a fault is healed: threads, processes. Dropping one ends it.
#[derive(Default)]
pub struct Held(Vec<Box<dyn Any + Send>>);

impl Held {
    /// Keeps something.
    pub fn keep(&mut self, thing: impl Any + Send) {
        self.0.push(Box::new(thing));
    }

    /// Ends everything.
    pub fn end(&mut self) {
        self.0.clear();
    }
}

/// A fault that could be injected.
#[derive(Debug)]
#[must_use]
pub struct Plan {
    /// Its name, as the command line has it.
    pub fault: &'static str,
    /// Whom it hits; empty where only a stopped node's files are concerned.
    pub targets: Vec<Target>,
    /// What it does.
    pub inject: Vec<Box<dyn Step>>,
    /// What undoes it; empty when nothing has to be.
    pub heal: Vec<Box<dyn Step>>,
    /// Whether it lasts only as long as this program keeps something going.
    pub needs_us: bool,
}

impl Plan {
    pub(crate) fn new(fault: &'static str, targets: &[&Target]) -> Plan {
        let targets = targets.iter().map(|&target| target.clone()).collect();
        Plan { fault, targets, inject: vec![], heal: vec![], needs_us: false }
    }

    pub(crate) fn inject_by(mut self, step: impl Step + 'static) -> Plan {
        self.inject.push(Box::new(step));
        self
    }

    pub(crate) fn heal_by(mut self, step: impl Step + 'static) -> Plan {
        self.heal.push(Box::new(step));
        self
    }

    pub(crate) fn while_we_run(mut self) -> Plan {
        self.needs_us = true;
        self
    }

    /// Injects it. When that fails half-way, what was done is undone.
    ///
    /// # Errors
    ///
    /// When a target is no longer the process that the plan was made for, or a step failed.
    pub fn inject(self) -> Result<Active, FaultError> {
        for target in &self.targets {
            target.check()?;
        }
        let mut active = Active { plan: Some(self), held: Held::default() };
        let Active { plan: Some(plan), held } = &mut active else { unreachable!("just made") };
        // On an error `active` is dropped, which heals.
        plan.inject.iter().try_for_each(|step| step.run(held))?;
        Ok(active)
    }
}

/// A fault that was injected. Dropping it heals it, as far as that is possible.
#[must_use = "dropping it heals the fault"]
pub struct Active {
    plan: Option<Plan>,
    held: Held,
}

impl Active {
    /// Heals it.
    ///
    /// # Errors
    ///
    /// The first step that failed; the others are done all the same.
    pub fn heal(mut self) -> Result<(), FaultError> {
        self.undo()
    }

    /// Lets it be, for good or until somebody else heals it. What keeps it going goes on as long as
    /// this program does.
    pub fn stay(mut self) {
        self.plan = None;
        std::mem::forget(std::mem::take(&mut self.held));
    }

    fn undo(&mut self) -> Result<(), FaultError> {
        let Some(plan) = self.plan.take() else { return Ok(()) };
        let mut result = Ok(());
        for step in &plan.heal {
            let outcome = step.run(&mut self.held);
            result = result.and(outcome);
        }
        self.held.end();
        result
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        // Whoever wants to know heals it by name.
        let _ = self.undo();
    }
}
