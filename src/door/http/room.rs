//! Who has a connection, and who goes when there are too many. Pure: told who comes, it says who leaves.
//!
//! A connection begins as a *stranger*: it showed no complete and allowed request. Strangers have a part of the room, and the oldest of
//! them goes for the next one, so that silent ones cannot keep anybody out. When the whole room is at work, who comes gets one of a few
//! connections in reserve: enough to look at the server, and to be told `overloaded`. So everybody is let in, and everybody is answered.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use crate::model::limits;

/// How many connections one way in has.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// All but those in reserve.
    pub connections: usize,
    pub strangers: usize,
    /// What one address may have of the strangers, once there are as many as may be.
    pub peer: usize,
    pub reserve: usize,
}

impl Bounds {
    /// For one of `ways` ways in to a process that may have so many open files.
    pub fn of(files: u64, ways: usize) -> Bounds {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let mine = files.saturating_mul(limits::SERVE_FILES_PERCENT) / 100 / ways.max(1);
        let connections = mine.clamp(4, limits::SERVE_CONNECTIONS_MAX);
        let strangers = limits::SERVE_STRANGERS_MAX.min(connections / 2);
        let peer = (strangers * limits::SERVE_PEER_PERCENT / 100).max(1);
        Bounds { connections, strangers, peer, reserve: limits::SERVE_RESERVE_MAX.min(connections / 2) }
    }
}

/// What a connection was seen to do last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Stranger,
    /// A request of it is being answered.
    Busy,
    /// Between two requests, since that turn.
    Idle(u64),
}

struct Guest {
    peer: Option<IpAddr>,
    stage: Stage,
    in_reserve: bool,
    /// It was told to go, and is as good as gone.
    leaves: bool,
    told: Arc<Notify>,
}

#[derive(Default)]
struct Guests {
    /// In the order in which they came.
    all: BTreeMap<u64, Guest>,
    /// Counts arrivals and turns to idleness: who has the smaller number is older.
    turns: u64,
}

/// The connections of one way in.
pub struct Room {
    bounds: Bounds,
    guests: Mutex<Guests>,
    count: watch::Sender<usize>,
}

impl Room {
    pub fn new(bounds: Bounds) -> Arc<Room> {
        Arc::new(Room { bounds, guests: Mutex::default(), count: watch::Sender::new(0) })
    }

    /// Lets one more in, and tells another to go where it must. `peer`: who counts for its address; a listed proxy and a Unix socket have none.
    pub fn enter(self: &Arc<Room>, peer: Option<IpAddr>) -> Seat {
        let mut guests = self.guests();
        let present = |guests: &Guests, of: &dyn Fn(&Guest) -> bool| guests.all.values().filter(|guest| !guest.leaves && of(guest)).count();
        let strangers = present(&guests, &|guest| !guest.in_reserve && guest.stage == Stage::Stranger);
        if strangers >= self.bounds.strangers {
            self.send_away_a_stranger(&mut guests);
        }
        let mut in_reserve = present(&guests, &|guest| !guest.in_reserve) >= self.bounds.connections;
        if in_reserve && (self.send_away_a_stranger(&mut guests) || send_away_the_idlest(&mut guests)) {
            in_reserve = false;
        }
        if in_reserve && present(&guests, &|guest| guest.in_reserve) >= self.bounds.reserve {
            // Those have short times and short answers: the oldest had its chance.
            let oldest = guests.all.iter().find(|(_, guest)| guest.in_reserve && !guest.leaves).map(|(id, _)| *id);
            oldest.map(|id| send_away(&mut guests, id));
        }
        guests.turns += 1;
        let (id, told) = (guests.turns, Arc::new(Notify::new()));
        guests.all.insert(id, Guest { peer, stage: Stage::Stranger, in_reserve, leaves: false, told: told.clone() });
        self.count.send_replace(guests.all.len());
        Seat { room: self.clone(), id, in_reserve, told }
    }

    /// How many may come in a row before those who came get a turn.
    pub fn row(&self) -> usize {
        (self.bounds.strangers / 4).clamp(1, limits::SERVE_ROW_MAX)
    }

    /// Has the oldest stranger go, if there is one: the process is out of open files.
    pub fn make_way(&self) {
        self.send_away_a_stranger(&mut self.guests());
    }

    /// Until nobody is there.
    pub async fn emptied(&self) {
        // The sender is this room's own.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Until those who were told to go are gone, but for a few: they still have their open files.
    pub async fn settled(&self) {
        let most = self.bounds.connections + 2 * self.bounds.reserve;
        let _ = self.count.subscribe().wait_for(|count| *count <= most).await;
    }

    /// The oldest of the address that has most, if that is more than its share; else the oldest of all.
    fn send_away_a_stranger(&self, guests: &mut Guests) -> bool {
        let strangers = || guests.all.iter().filter(|(_, guest)| !guest.leaves && !guest.in_reserve && guest.stage == Stage::Stranger);
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        strangers().filter_map(|(_, guest)| guest.peer).for_each(|peer| *counts.entry(peer).or_default() += 1);
        let greedy =
            counts.into_iter().filter(|(_, count)| *count > self.bounds.peer).max_by_key(|(_, count)| *count).map(|(peer, _)| peer);
        let oldest = strangers().find(|(_, guest)| greedy.is_none() || guest.peer == greedy).map(|(id, _)| *id);
        oldest.is_some_and(|id| send_away(guests, id))
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send_away_the_idlest(guests: &mut Guests) -> bool {
    let idle = guests.all.iter().filter_map(|(id, guest)| match guest.stage {
        Stage::Idle(since) if !guest.leaves && !guest.in_reserve => Some((since, *id)),
        _ => None,
    });
    idle.min().is_some_and(|(_, id)| send_away(guests, id))
}

fn send_away(guests: &mut Guests, id: u64) -> bool {
    let Some(guest) = guests.all.get_mut(&id) else { return false };
    guest.leaves = true;
    guest.told.notify_one();
    true
}

/// A connection's place in a room, given back on drop.
pub struct Seat {
    room: Arc<Room>,
    id: u64,
    /// The room is full: it is let in to look, and to be told so.
    pub in_reserve: bool,
    told: Arc<Notify>,
}

impl Seat {
    /// It showed a complete and allowed request, which is being answered.
    pub fn works(&self) {
        self.set(|_| Stage::Busy);
    }

    /// Its answer is written.
    pub fn rests(&self) {
        self.set(Stage::Idle);
    }

    /// Whether it never showed an allowed request.
    pub fn is_stranger(&self) -> bool {
        self.room.guests().all.get(&self.id).is_some_and(|guest| guest.stage == Stage::Stranger)
    }

    /// Until it is told to make room for another.
    pub async fn told_to_go(&self) {
        self.told.notified().await;
    }

    fn set(&self, stage: impl FnOnce(u64) -> Stage) {
        let mut guests = self.room.guests();
        guests.turns += 1;
        let turn = guests.turns;
        if let Some(guest) = guests.all.get_mut(&self.id) {
            guest.stage = stage(turn);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut guests = self.room.guests();
        guests.all.remove(&self.id);
        self.room.count.send_replace(guests.all.len());
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    const BOUNDS: Bounds = Bounds { connections: 8, strangers: 4, peer: 2, reserve: 2 };

    fn peer(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    /// Which of them were told to go, by their place in the list.
    fn told(seats: &[Seat]) -> Vec<usize> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut is_told = |seat: &Seat| std::pin::pin!(seat.told_to_go()).poll(&mut context).is_ready();
        let mut found = Vec::new();
        for (at, seat) in seats.iter().enumerate() {
            if is_told(seat) {
                found.push(at);
                seat.told.notify_one();
            }
        }
        found
    }

    #[test]
    fn the_oldest_silent_one_goes_for_the_next_and_none_that_works() {
        let room = Room::new(BOUNDS);
        let mut seats: Vec<Seat> = (0..4).map(|_| room.enter(None)).collect();
        assert_eq!(told(&seats), [0; 0]);
        seats[0].works();
        seats.push(room.enter(None));
        assert_eq!(told(&seats), [0; 0], "one of them is no stranger any more");
        seats.push(room.enter(None));
        assert_eq!(told(&seats), [1], "not the first, who works");
        // Whoever shows a request keeps its place from then on, however many strangers come.
        seats[5].works();
        seats[5].rests();
        seats.extend((0..100).map(|_| room.enter(None)));
        let gone = told(&seats);
        assert_eq!(gone, [&[1, 2, 3, 4][..], &(6..102).collect::<Vec<_>>()].concat());
    }

    #[test]
    fn an_address_with_more_than_its_share_loses_its_own_and_a_listed_proxy_does_not() {
        let room = Room::new(BOUNDS);
        // A slow one, then three of one address, and another one: the greedy one's oldest goes, not the slow one.
        let mut seats = vec![room.enter(peer(1)), room.enter(peer(2)), room.enter(peer(2)), room.enter(peer(2))];
        seats.push(room.enter(peer(3)));
        assert_eq!(told(&seats), [1]);
        // Within the shares, and behind a listed proxy (which has no address here), the oldest goes.
        let room = Room::new(BOUNDS);
        let mut seats = vec![room.enter(peer(1)), room.enter(None), room.enter(None), room.enter(None)];
        seats.push(room.enter(None));
        assert_eq!(told(&seats), [0]);
    }

    #[test]
    fn a_room_at_work_has_a_reserve_for_whoever_comes_and_the_idle_go_before_that() {
        let room = Room::new(BOUNDS);
        let mut seats: Vec<Seat> = (0..8)
            .map(|_| {
                let seat = room.enter(None);
                seat.works();
                seat
            })
            .collect();
        seats.push(room.enter(None));
        assert!(seats[8].in_reserve && told(&seats).is_empty());
        seats.push(room.enter(None));
        seats.push(room.enter(None));
        assert!(seats[10].in_reserve);
        assert_eq!(told(&seats), [8], "the oldest in reserve, and none that works");
        seats[3].rests();
        seats[2].rests();
        seats.push(room.enter(None));
        assert!(!seats[11].in_reserve);
        assert_eq!(told(&seats), [3, 8], "the one that rests for longest");
    }

    #[test]
    fn bounds_leave_open_files_for_pods() {
        let bounds = Bounds::of(1_024, 2);
        assert_eq!((bounds.connections, bounds.strangers, bounds.peer, bounds.reserve), (256, 128, 32, 64));
        let bounds = Bounds::of(1 << 20, 2);
        assert_eq!((bounds.connections, bounds.strangers), (limits::SERVE_CONNECTIONS_MAX, limits::SERVE_STRANGERS_MAX));
        assert!(bounds.connections > limits::SERVE_CALLS_MAX, "connections are more than calls");
    }

    #[tokio::test]
    async fn a_room_is_empty_when_the_last_one_left() {
        let room = Room::new(BOUNDS);
        let (one, other) = (room.enter(None), room.enter(None));
        let left = tokio::spawn(async move {
            drop(one);
            tokio::task::yield_now().await;
            drop(other);
        });
        room.emptied().await;
        left.await.unwrap();
    }
}
