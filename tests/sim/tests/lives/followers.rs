//! Followers go on until nothing is sent any more: also what is appended once all clients have ended, as they
//! did not know what came of it.

use std::collections::BTreeMap;

use folkmoot_jepsen::history::{F, Kind, Name, Value};
use folkmoot_sim::life;
use folkmoot_sim::plan::{Plan, Wishes};
use folkmoot_sim::runtime;

const LIVES: u64 = 16;

#[test]
fn followers_wait_for_all_that_a_room_has_at_the_end() {
    runtime::quiet_panics();
    let mut waited = 0;
    for seed in 0..LIVES {
        let outcome = life::live(&Plan::draw(seed, &Wishes::default()), false);
        assert_eq!(outcome.failures, Vec::<String>::new(), "seed {seed}");
        let ok = outcome.history.ops().iter().filter(|op| op.kind == Kind::Ok);
        let mut heads: BTreeMap<&Name, u64> = BTreeMap::new();
        for op in ok.clone().filter(|op| op.f == F::FinalRead) {
            if let (Some(room), Value::Page { head, .. }) = (&op.room, &op.value) {
                heads.insert(room, *head);
            }
        }
        for op in ok.filter(|op| op.f == F::Unsubscribe) {
            let (Some(room), Value::Subscription { head, .. }) = (&op.room, &op.value) else {
                panic!("seed {seed}: {op:?}");
            };
            assert_eq!(*head, Some(heads[room]), "seed {seed}, room {room}");
            waited += 1;
        }
    }
    assert!(waited >= LIVES, "{waited}");
}
