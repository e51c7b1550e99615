//! Tests pool and slots without processes: which of them is told what, and when a pod is started.
//!
//! The pods are made up, because the moments that matter last microseconds of a real pod's life.

use tokio::time::{advance, timeout_at};

use super::*;
use crate::{
    model::{Manifest, Priority, status::Health},
    pod::{
        pool::{
            ask::{Ask, Request},
            poison::Ended,
            slot::Taken,
            state::Report,
            watcher::{Mailbox, PodShared},
        },
        record::printed::Printed,
    },
};

const MANIFEST: &str = r#"name = "test/paper"
version = "0.1.0"
license = "Apache-2.0"
summary = "Is never run"
hob = "0.1"
[pod]
runtime = "python"
entry = "paper:Paper"
python = ">=3.9"
[operations.run]
summary = "Runs"
idempotent = true
input = {}
output = {}
"#;

/// A made-up pod.
#[derive(Clone)]
struct Paper {
    slot: Slot,
    shared: Arc<PodShared>,
}

impl Paper {
    async fn told(&self) -> bool {
        timeout_at(Instant::now() + Duration::from_millis(1), self.shared.receive()).await.is_ok_and(|Mailbox { work, .. }| work)
    }
    fn take(&self, units: usize) -> Taken {
        self.slot.take_work(&mut Report::default(), units, None, false, &self.shared)
    }
    /// Dies without having answered.
    fn dies(&self) {
        self.slot.report_failing();
        let fault = Fault::new(Code::Crashed, "on paper");
        self.slot.report_end(End { why: Why::Failed, was_ready: true, was_useful: false, was_killed_at_start: false, fault });
    }
}

#[derive(Default)]
struct Papers(Mutex<Vec<Paper>>);

impl Spawner for Papers {
    fn spawn(&self, slot: Slot) -> BoxFuture<'_, Result<Watcher, Fault>> {
        let manifest = Manifest::parse(MANIFEST, "recipe.toml").unwrap();
        let shared = Arc::new(PodShared::new(&manifest, "paper", Printed::new("/nowhere".into())));
        self.0.lock().unwrap().push(Paper { slot, shared: shared.clone() });
        let (sender, finished) = tokio::sync::watch::channel(false);
        // No test waits for its end.
        std::mem::forget(sender);
        Box::pin(async move { Ok(Watcher { finished, shared }) })
    }
}

struct Rig {
    pool: Pool,
    papers: Arc<Papers>,
}

impl Rig {
    /// With `pods` pods, each ready for its first unit.
    async fn new(pods: usize, max: usize, concurrency: u32) -> Rig {
        let rig = Rig::unready(pods, max, concurrency);
        rig.ready(pods).await;
        rig
    }

    fn unready(pods: usize, max: usize, concurrency: u32) -> Rig {
        let recipe = Verified::on_paper(Manifest::parse(MANIFEST, "recipe.toml").unwrap());
        let papers = Arc::new(Papers::default());
        let spec = PoolSpec { min: pods, max, idle_timeout_ms: 1_000 };
        let rig = Rig { pool: Pool::new(Arc::new(recipe), spec, concurrency, papers.clone()), papers };
        rig.pool.warm();
        rig
    }

    /// Lets every started pod become ready; asserts that there are `pods` of them.
    async fn ready(&self, pods: usize) {
        advance(Duration::from_millis(1)).await;
        let all = self.pods();
        assert_eq!(all.len(), pods);
        all.iter().for_each(|paper| paper.slot.report_ready());
        for paper in &all {
            paper.told().await;
        }
    }

    /// All pods that were ever started, in order.
    fn pods(&self) -> Vec<Paper> {
        self.papers.0.lock().unwrap().clone()
    }

    fn ask(&self) -> Result<Ask, Fault> {
        let operation = self.pool.0.recipe.manifest().operation("run").unwrap().clone();
        self.pool.ask(Request {
            operation,
            input: "0".to_owned(),
            cost: 1,
            blobs: Vec::new(),
            deadline: Instant::now() + Duration::from_secs(3_600),
            priority: Priority::Normal,
            events: crate::model::events::channel(1).0,
        })
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_pod_is_told_when_one_is_ready_or_has_failed() {
    for fails in [false, true] {
        let rig = Rig::unready(1, 1, 1);
        let pool = rig.pool.clone();
        let waits = tokio::spawn(async move { pool.ready().await });
        advance(Duration::from_millis(1)).await;
        assert!(!waits.is_finished());
        match fails {
            false => rig.ready(1).await,
            true => rig.pods()[0].dies(),
        }
        // No clock: the paused one would run for ever.
        assert_eq!(waits.await.unwrap().map_err(|fault| fault.code), if fails { Err(Code::Crashed) } else { Ok(()) });
    }
}

/// Ten minutes of a recipe with `min` pods, which all end in one way before they serve an ask.
#[tokio::test(start_paused = true)]
async fn no_end_of_a_pod_that_served_nobody_is_outside_the_restart_policy() {
    for why in [Why::Refused, Why::NeverBegan, Why::Failed] {
        for min in [1, 2] {
            let rig = Rig::unready(min, min, 1);
            let (mut over, mut refused) = (0, 0);
            for _ in 0..6_000 {
                advance(Duration::from_millis(100)).await;
                for paper in rig.pods().into_iter().skip(over) {
                    over += 1;
                    paper.slot.report_failing();
                    let fault = Fault::new(if why == Why::Refused { Code::OutOfMemory } else { Code::Crashed }, "on paper");
                    paper.slot.report_end(End { why, was_ready: false, was_useful: false, was_killed_at_start: false, fault });
                    // A caller is told at once why there is no pod, and starts none.
                    if why == Why::Refused {
                        refused += usize::from(rig.ask().err().is_some_and(|fault| fault.code == Code::OutOfMemory));
                    }
                }
            }
            assert!((4..=14).contains(&over), "{why:?}, min {min}: {over} starts in ten minutes");
            assert_ne!(rig.pool.status().health, Health::Good, "{why:?}, min {min}");
            assert!(why != Why::Refused || refused >= over - min, "{refused} of {over}");
        }
    }
}

/// Other pods have all that a pod needs of the host: callers are told, at most one start a second is tried,
/// and nothing counts as a failure.
#[tokio::test(start_paused = true)]
async fn a_pod_for_which_nothing_is_left_counts_as_no_failure() {
    let rig = Rig::unready(0, 1, 1);
    for round in 0..30 {
        let mut ask = rig.ask().unwrap();
        while rig.pods().len() == round {
            advance(Duration::from_millis(100)).await;
        }
        let paper = rig.pods().pop().unwrap();
        let fault = Fault::new(Code::Overloaded, "others have it");
        paper.slot.report_end(End { why: Why::Short, was_ready: false, was_useful: false, was_killed_at_start: false, fault });
        assert!(matches!(ask.next().await, Some(crate::pod::Reply::Fault(fault)) if fault.code == Code::Overloaded), "{round}");
        let before = Instant::now();
        let status = rig.pool.status();
        assert_eq!((status.health, status.crashes), (Health::Good, 0), "{round}");
        let next = rig.ask().unwrap();
        while rig.pods().len() == round + 1 {
            advance(Duration::from_millis(50)).await;
        }
        assert!(before.elapsed() >= Duration::from_millis(900), "{round}: {:?}", before.elapsed());
        drop(next);
        let paper = rig.pods().pop().unwrap();
        let fault = Fault::new(Code::Overloaded, "others have it");
        paper.slot.report_end(End { why: Why::Short, was_ready: false, was_useful: false, was_killed_at_start: false, fault });
        advance(Duration::from_secs(2)).await;
        rig.papers.0.lock().unwrap().truncate(round + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_offered_to_a_pod_that_dies_is_offered_to_another() {
    let rig = Rig::new(2, 2, 1).await;
    let [first, second] = &rig.pods()[..] else { panic!() };
    let _ask = rig.ask().unwrap();
    assert!(first.told().await && !second.told().await, "one is enough");
    first.slot.report_failing();
    assert!(second.told().await, "it waits beside an idle pod");
    assert_eq!(second.take(0).units.len(), 1);
    // A dead pod is offered nothing.
    let _ask = rig.ask().unwrap();
    assert!(!first.told().await);
}

#[tokio::test(start_paused = true)]
async fn who_sees_for_itself_that_there_is_nothing_for_it_is_not_told_again() {
    let rig = Rig::new(2, 2, 1).await;
    let [first, second] = &rig.pods()[..] else { panic!() };
    let _asks = [rig.ask().unwrap(), rig.ask().unwrap()];
    assert!(first.told().await);
    assert_eq!(first.take(0).units.len(), 1);
    assert!(!first.told().await && second.told().await, "what it has no room for is another's");
}

#[tokio::test(start_paused = true)]
async fn an_ask_that_has_to_go_alone_holds_up_one_pod_and_not_the_pool() {
    let rig = Rig::new(2, 3, 4).await;
    let [first, second] = &rig.pods()[..] else { panic!() };
    let _asks: Vec<Ask> = (0..3).map(|_| rig.ask().unwrap()).collect();
    let mut taken = first.take(0).units;
    assert_eq!(taken.len(), 3);
    // Two of them go back, suspected of having ended a pod; the third takes long.
    let alone = [taken.remove(0).asks.remove(0), taken.remove(0).asks.remove(0)];
    let _none = first.take(1);
    first.slot.put_back(alone.into(), true);
    let lone = second.take(0).units;
    assert!(lone.len() == 1 && second.take(1).units.is_empty(), "it is alone there");
    let _ask = rig.ask().unwrap();
    assert_eq!(first.take(1).units.len(), 1, "the others go on");
    advance(Duration::from_millis(1)).await;
    assert_eq!(rig.pods().len(), 3, "the second one that goes alone needs an empty pod");
}

#[tokio::test(start_paused = true)]
async fn after_a_quarantine_one_pod_is_tried_and_then_as_many_as_are_wanted_also_beside_one_that_goes() {
    let rig = Rig::new(1, 3, 1).await;
    // The first pod is leaving, but takes its time.
    rig.pods()[0].slot.report_retiring();
    let mut pods = 1;
    let fault = loop {
        let asked = rig.ask();
        advance(Duration::from_secs(31)).await;
        let all = rig.pods();
        match asked {
            Err(fault) => break fault,
            Ok(_) if all.len() == pods => continue,
            Ok(_) => {
                pods = all.len();
                all[pods - 1].slot.report_ready();
                all[pods - 1].dies();
            }
        }
        assert!(pods < 20, "never quarantined");
    };
    assert_eq!(fault.code, Code::CoolingDown, "not kept waiting for the one that goes: {fault:?}");
    advance(Duration::from_secs(700)).await;
    let asks: Vec<Ask> = (0..3).map(|_| rig.ask().unwrap()).collect();
    advance(Duration::from_millis(10)).await;
    let all = rig.pods();
    assert_eq!(all.len(), pods + 1, "one is tried");
    let trial = &all[pods];
    trial.slot.report_ready();
    let unit = trial.take(0).units.remove(0);
    let over = vec![unit.asks[0].ticket];
    trial.slot.take_work(&mut Report { over, good: 1, ..Report::default() }, 0, None, false, &trial.shared);
    advance(Duration::from_secs(2)).await;
    assert!(rig.pods().len() > pods + 1, "cured, and there is more to do");
    drop(asks);
}

#[tokio::test(start_paused = true)]
async fn an_input_that_ended_pods_is_refused_and_says_for_how_long() {
    let rig = Rig::new(1, 1, 1).await;
    let pod = &rig.pods()[0];
    let ask = rig.ask().unwrap();
    let ticketed = pod.take(0).units.remove(0).asks.remove(0);
    assert!(pod.slot.blame(&ticketed.pending.request, Ended::Crash).is_none());
    let fault = pod.slot.blame(&ticketed.pending.request, Ended::Crash).unwrap();
    assert_eq!((fault.code, fault.retry_after), (Code::PoisonRequest, Some(600_000)));
    assert_eq!(rig.ask().err().unwrap().code, Code::PoisonRequest);
    advance(Duration::from_secs(601)).await;
    assert!(rig.ask().is_ok() && !rig.pool.0.has_suspects(), "remembered for ever");
    drop(ask);
}
