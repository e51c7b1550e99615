//! The driver's timers: graces, stalls, whether its pod lives, whether the pod is still wanted.
//!
//! The loop in `task.rs` has one timer. This file says when it fires and what is due then.

use std::{path::Path, sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use crate::{
    model::{
        Code, Fault, act, hint,
        limits::{MEMORY_LOOK_MS, MEMORY_WATCH_IDLE_MS, MEMORY_WATCH_MS, PING_MS, SESSION_TTL_MAX_MS, SILENCE_MS},
        manifest::spec::{PodSpec, Recycle},
    },
    pod::{
        driver::{
            Driver,
            lanes::Which,
            state::{AskId, Event, State},
        },
        process::{unseen::Unseen, vitals},
        sandbox::plan,
    },
};

/// The waits of one driver, each with its end.
pub(super) struct Clocks {
    /// The wait of the state machine.
    phase: Option<Instant>,
    /// When the pool has work for this pod again.
    again: Option<Instant>,
    idle_at: Option<Instant>,
    idle_timeout: Duration,
    /// When its memory is checked next, to end the pod above its limit; never if a control group enforces the
    /// limit from the first process on.
    memory_due: Option<Instant>,
    memory_looked: Instant,
    recycle: Recycle,
    /// When the pod last said anything.
    heard: Instant,
    silence: Silence,
}

/// Observations of a busy pod that is silent.
#[derive(Default)]
struct Silence {
    /// How often it was inspected since its last message.
    looks: u32,
    cpu: Option<Duration>,
    /// Since when it has used no processor time.
    still_since: Option<Instant>,
}

impl Silence {
    /// Notes an inspection that found this much processor time. Returns since when the pod has used none.
    fn inspect(&mut self, now: Instant, cpu: Option<Duration>) -> Instant {
        self.looks += 1;
        let computes = self.cpu.is_none_or(|before| cpu > Some(before));
        self.cpu = cpu;
        match computes {
            true => *self.still_since.insert(now),
            false => *self.still_since.get_or_insert(now),
        }
    }
}

impl Clocks {
    pub fn new(now: Instant, pod: Option<&PodSpec>, in_session: bool) -> Clocks {
        Clocks {
            phase: Some(now + Duration::from_millis(pod.map_or(0, |pod| pod.start_timeout_ms))),
            again: None,
            idle_at: None,
            idle_timeout: Duration::from_millis(match in_session {
                true => SESSION_TTL_MAX_MS,
                false => pod.map_or(0, |pod| pod.pool.idle_timeout_ms),
            }),
            memory_due: Some(now + Duration::from_millis(MEMORY_WATCH_MS)),
            memory_looked: now,
            // What a session has is not to be lost by chance: its pod goes when it was kept, and then by word
            // of the session.
            recycle: pod.filter(|_| !in_session).map(|pod| pod.recycle.clone()).unwrap_or_default(),
            heard: now,
            silence: Silence::default(),
        }
    }

    // The wait of the state machine.

    /// Starts the wait; it replaces the one before.
    pub fn arm(&mut self, now: Instant, length: Duration) {
        self.phase = Some(now + length);
    }

    /// Ends the wait; returns what was left of it.
    pub fn disarm(&mut self, now: Instant) -> Option<Duration> {
        self.phase.take().map(|at| at.saturating_duration_since(now))
    }

    // What the pod says.

    /// The pod sent a message.
    pub fn note_message(&mut self, now: Instant) {
        if self.silence.looks > 0 {
            self.silence = Silence::default();
        }
        self.heard = now;
    }

    /// When the pod last said anything.
    pub fn last_message(&self) -> Instant {
        self.heard
    }

    /// Counts the pod's silence from now on.
    pub fn listen_anew(&mut self, now: Instant) {
        (self.heard, self.silence) = (now, Silence::default());
    }

    /// When a busy, silent pod is inspected next.
    fn inspects_at(&self) -> Instant {
        self.heard + Duration::from_millis(PING_MS) * (self.silence.looks + 1)
    }

    // Work, idleness and age.

    /// The pod has its first ask in hand.
    pub fn begin_work(&mut self, now: Instant) {
        self.listen_anew(now);
        self.memory_due = self.memory_due.map(|at| at.min(now + Duration::from_millis(MEMORY_WATCH_MS)));
    }

    /// The pod has no ask in hand from now on.
    pub fn begin_idle(&mut self, now: Instant) {
        self.idle_at = Some(now + self.idle_timeout);
    }

    pub fn end_idle(&mut self) {
        self.idle_at = None;
    }

    /// The pool has work for this pod at that time, without further notice.
    pub fn look_for_work_at(&mut self, at: Option<Instant>) {
        self.again = at;
    }

    /// The kernel holds the pod to its memory from its first process on.
    pub fn stop_watching_memory(&mut self) {
        self.memory_due = None;
    }

    /// Whether the pod should be replaced, after so many asks and at that age. `memory`: its memory in bytes,
    /// which is read only now and then.
    pub fn served_long_enough(&mut self, now: Instant, asks: u64, age_ms: u64, memory: impl FnOnce() -> Option<u64>) -> bool {
        let Recycle { calls, age_ms: oldest_ms, memory_bytes } = self.recycle;
        let many = calls.is_some_and(|calls| asks >= calls);
        let old = oldest_ms.is_some_and(|oldest_ms| age_ms >= oldest_ms);
        let large = memory_bytes.is_some_and(|most| {
            // Looking takes tens of microseconds: not after every ask.
            let looks = now - self.memory_looked >= Duration::from_millis(MEMORY_LOOK_MS);
            if looks {
                self.memory_looked = now;
            }
            looks && memory().is_some_and(|bytes| bytes > most)
        });
        many || old || large
    }

    /// When the first of these waits ends.
    fn next_due(&self) -> Option<Instant> {
        [self.phase, self.again, self.idle_at, self.memory_due].into_iter().flatten().min()
    }
}

impl Driver {
    /// When the first of all waits ends.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let stalls = self.stalls().map(|(_, at)| at);
        let speaks = (!self.in_flight.is_empty() && self.lanes.hears(Which::Data)).then(|| self.clocks.inspects_at());
        let others = [self.clocks.next_due(), self.lanes.next_due(), self.in_flight.next_due(), self.loading.keep_until(), speaks];
        others.into_iter().flatten().chain(stalls).min()
    }

    /// Whether the pod's process has ended but the news of it is late, as on a busy machine. Its sockets are
    /// then closed because it is dead, which is no protocol violation.
    fn is_ended_unheard(&self, now: Instant) -> bool {
        let pid = self.shared.pid.load(Ordering::Acquire);
        pid != 0 && vitals::identity(pid).is_none() && self.lanes.may_exit_late(now)
    }

    pub(super) fn due(&mut self, now: Instant) {
        if self.clocks.phase.take_if(|at| *at <= now).is_some() {
            self.step(Event::Timeout);
        }
        if self.lanes.take_exit_overdue(now) {
            match self.is_ended_unheard(now) {
                true => self.lanes.await_exit(now),
                false => self.step(Event::LaneClosed),
            }
        }
        if self.lanes.take_backlog_overdue(now) {
            self.is_deaf();
        }
        if self.clocks.again.take_if(|at| *at <= now).is_some() {
            self.wants_work = true;
        }
        if self.clocks.idle_at.take_if(|at| *at <= now).is_some() {
            match self.end.is_leaving() || (!self.loading.is_pinned() && self.slot.may_idle_out()) {
                true => self.retire(),
                false => self.clocks.begin_idle(now),
            }
        }
        if self.loading.take_keep_over(now) {
            self.not_kept_alive();
        }
        if self.clocks.memory_due.take_if(|at| *at <= now).is_some() {
            self.watch_memory(now);
        }
        for unit in self.in_flight.take_graces_over(now) {
            self.step(Event::GraceOver(unit));
        }
        let stalled: Vec<AskId> = self.stalls().filter(|(_, at)| *at <= now).map(|(ask, _)| ask).collect();
        for ask in stalled {
            let fault = self.stalled(ask);
            self.step(Event::Stalled(ask, fault));
        }
        self.end_unread(now);
        self.listen(now);
    }

    /// Ends a pod that uses more of the machine than allowed, if the kernel does not enforce the limit.
    fn watch_memory(&mut self, now: Instant) {
        let pod = self.spec.recipe.manifest().pod.as_ref();
        let (most, most_processes) = (plan::memory_bytes(pod), plan::processes(pod));
        let top = self.process.top_pid();
        // Files in its private folders are memory too.
        let folders = [Path::new("/tmp"), Path::new("/dev/shm"), self.process.scratch(&self.spec)];
        let pid = Some(self.shared.pid.load(Ordering::Acquire)).filter(|pid| *pid != 0);
        let files = pid.and_then(|pid| vitals::private_bytes(pid, folders)).unwrap_or(0);
        let members = top.and_then(vitals::members).unwrap_or_default();
        let (own, shared) = vitals::resident(&members);
        let unseen = Unseen::of(&members);
        // Files without a name are among what is shared as far as they are mapped.
        let held = |unseen: &Unseen| own + files + shared.max(unseen.file_bytes()) + unseen.channel_bytes();
        if held(&unseen) > most {
            let held = held(&unseen.without_ours());
            if held > most {
                return self.step(Event::Excess(over_memory(held, most)));
            }
        }
        if let Some(count) = top.and_then(vitals::processes).filter(|count| *count as u64 >= most_processes) {
            let text = format!("the pod had {count} processes and may have {most_processes}, and was killed");
            let fault = Fault::new(Code::Crashed, text).hint(hint!["its recipe declares the limit as ", act::processes()]);
            return self.step(Event::Excess(fault));
        }
        let idle = self.in_flight.is_empty() && matches!(self.state, State::Serving(_));
        self.clocks.memory_due = Some(now + Duration::from_millis(if idle { MEMORY_WATCH_IDLE_MS } else { MEMORY_WATCH_MS }));
    }

    /// Checks liveness, independently of progress: a busy pod that is silent is pinged; if it then neither
    /// answers nor computes, it is ended.
    fn listen(&mut self, now: Instant) {
        let serves = matches!(self.state, State::Serving(_) | State::Draining { .. });
        if self.in_flight.is_empty() || !serves || !self.lanes.hears(Which::Data) || now < self.clocks.inspects_at() {
            return;
        }
        let still_since = self.clocks.silence.inspect(now, vitals::cpu_time(self.shared.pid.load(Ordering::Acquire)));
        if self.clocks.silence.looks == 1 {
            self.say_ping();
        }
        if now - still_since >= Duration::from_millis(SILENCE_MS) {
            let quiet = (now - self.clocks.heard).as_secs();
            let text = format!("the pod said nothing for {quiet} s, did not compute either, and was killed");
            self.step(Event::Silent(Fault::new(Code::Stalled, text)));
        }
    }

    /// When asks without progress have stalled. An ask can stall only if it promises progress, while it runs,
    /// and while the host reads from its pod.
    fn stalls(&self) -> impl Iterator<Item = (AskId, Instant)> {
        let turns = if self.lanes.hears(Which::Data) { self.rules.concurrency() } else { 0 };
        self.in_flight.stalls(turns)
    }

    fn stalled(&self, ask: AskId) -> Fault {
        let operation = self.in_flight.ticketed(ask).map(|ticketed| ticketed.pending.request.operation.clone());
        let (name, interval) = operation.map_or((String::new(), 0), |op| (op.name.clone(), op.progress_interval_ms.unwrap_or(0)));
        let recipe = &self.spec.recipe.manifest().name;
        let fault =
            Fault::new(Code::Stalled, format!("`{name}` of `{recipe}` gave no progress for {interval} ms, which is what it promises"))
                .hint(hint![
                    "the recipe declares that as ",
                    act::progress_interval(&name),
                    ": it hangs, or it should report progress more often"
                ]);
        self.with_tail(fault, ask)
    }
}

/// The fault of a pod that used more memory than allowed.
pub(super) fn over_memory(held: u64, most: u64) -> Fault {
    Fault::new(Code::OutOfMemory, format!("the pod held {held} bytes of memory and may have {most}, and was killed"))
        .hint(hint!["give it less at once; its recipe declares the limit as ", act::memory_bytes()])
        .with("device", "cpu")
        .with("memory_bytes", held)
        .with("memory_bytes_max", most)
}
