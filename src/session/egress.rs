//! From a TUN frame to symbols committed to links.
//!
//! ```text
//! handle_frame ─► flow queue (FQ-CoDel) ─► [commit] lane sequence ─► bodies ─► group ─► pick a link ─► its queue
//!                                                                     │ group closes: count, age
//!                                                                     └──────► repair symbols ─► pick ─► queue
//! ```
//!
//! What follows the flow queue happens for each route of `routes` by itself; most packets are on the first one.
//! Frames leave a flow queue only when some link of their route has room, so the queue that grows under overload is the one
//! that CoDel watches. A frame larger than one body is cut over several turns of the loop (`cutting`), each
//! symbol choosing its link by itself.

use std::time::Duration;

use super::Session;
use super::routes::{Route, Scope, Treatment};
use super::slowed::Slowed;
use super::symbols::{GROUPS, SymbolKey, SymbolStore};
use crate::base::id::{LANES, LINKS_MAX};
use crate::base::{DropReason, Frame, FrameStore, GroupId, Instant, Lane};
use crate::fec::codec::Codec;
use crate::fec::encoder::OpenGroup;
use crate::fec::protection::{Mode as FecMode, Protection};
use crate::fec::{self, GROUP_SYMBOLS_MAX};
use crate::link::history::History;
use crate::stream::cut::{BodyWriter, Fragments, fragments, whole_len};
use crate::stream::mss;
use crate::stripe::Scheduler;
use crate::wire::inner_ip;
use crate::wire::message::SYMBOL_LENGTH_BYTES;
use crate::wire::virtio::VIRTIO_BYTES;

/// Symbols kept until acknowledged: 180 ms at 1 Gbit/s; touched only as far as used.
const SYMBOLS: u32 = 16_384;
/// Symbols waiting to be sent again. More means that a link with a large window died; the rest expires.
pub(super) const RESEND_MAX: usize = 8_192;
/// Bytes of a body up to which its group is one of small symbols, so that streams of acknowledgements do not pay
/// for repair symbols of full size.
pub(super) const SMALL_BODY_BYTES: usize = 256;
/// Most repair symbols computed at once.
pub const REPAIR_MAX: usize = 96;
/// Group shape that the codec's memory is prepared for; larger ones allocate once.
const PREPARED: (usize, usize) = (128, 64);

/// Which open group a symbol joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Full bodies.
    Bulk,
    /// Short bodies.
    Small,
}

/// Number of [`Class`]es.
pub(super) const GROUP_CLASSES: usize = 2;

/// The class of a slot of open groups.
pub(super) const fn class_of(slot: usize) -> Class {
    if slot % GROUP_CLASSES == Class::Bulk as usize {
        Class::Bulk
    } else {
        Class::Small
    }
}

/// The route of a slot of open groups.
pub(super) const fn route_of(slot: usize) -> usize {
    slot / GROUP_CLASSES
}

/// A frame that is being cut.
#[derive(Debug)]
pub struct Cutting {
    frame: Frame,
    rest: Fragments,
    lane: Lane,
    seq: u32,
    /// Hash of a flow that sends much.
    fast: Option<u64>,
    /// When the frame came.
    since: Instant,
}

/// A frame that left the flow queue.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) frame: Frame,
    pub(super) hash: u64,
    pub(super) sparse: bool,
    /// Its flow sends much.
    pub(super) fast: bool,
    /// When the frame came.
    pub(super) since: Instant,
}

/// State of the sending direction.
#[derive(Debug)]
pub struct Egress {
    pub(super) frames: FrameStore,
    /// Where frames wait, by what they may use. The first one is for all links.
    pub(super) routes: Vec<Route>,
    /// Whose turn it is.
    pub(super) next_route: usize,
    /// Which packets take which route.
    pub(super) treatments: Vec<Treatment>,
    lane_next: [u32; LANES],
    /// What fast flows have under way: their slow frames stay behind it.
    pub(super) slowed: Slowed,
    /// Relative delay that the symbols get which are committed at this moment.
    pub(super) level: Duration,
    /// When the frame came that is committed at this moment.
    pub(super) since: Instant,
    /// How long frames were with us: from the read of the TUN to the datagram's leave.
    pub(super) residence: History,
    pub(super) store: SymbolStore,
    /// Open groups: [`GROUP_CLASSES`] of each route.
    pub(super) open: Vec<OpenGroup<SymbolKey>>,
    /// Repair symbols planned for the open groups; 0 tells the receiver not to keep bodies.
    pub(super) planned: Vec<usize>,
    pub(super) codec: Codec,
    /// Repair symbols that were just made: empty between two calls.
    pub(super) repairs: Vec<SymbolKey>,
    /// How much repair a group gets.
    pub(super) protection: Protection,
    /// Sources of the open groups on each WAN.
    pub(super) spread: Vec<[u8; LINKS_MAX]>,
    /// Groups to mend: empty between two calls.
    pub(super) late: Vec<GroupId>,
    /// Room for the keys of a late group's sources.
    pub(super) sources: Vec<SymbolKey>,
    pub(super) scheduler: Scheduler,
    /// Symbols sent for the first time, as repair, and again.
    pub(super) counts: SymbolCounts,
}

/// What was committed so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct SymbolCounts {
    /// Groups opened.
    pub groups: u64,
    /// Source symbols.
    pub source: u64,
    /// Repair symbols.
    pub repair: u64,
    /// Copies of sparse symbols and of redundant mode.
    pub duplicate: u64,
    /// Symbols sent again after a loss.
    pub resent: u64,
    /// Those of them that were of sparse flows.
    pub resent_sparse: u64,
}

impl Egress {
    /// # Panics
    /// Never: the prepared shape is valid.
    pub(super) fn new(scheduler: Scheduler, fec: FecMode, body_bytes_max: usize) -> Self {
        let symbol_bytes = body_bytes_max + SYMBOL_LENGTH_BYTES;
        let mut codec = Codec::new();
        codec
            .expect(PREPARED.0, PREPARED.1, fec::symbol_bytes(body_bytes_max))
            .expect("the prepared shape is valid");
        Self {
            frames: FrameStore::default(),
            routes: vec![Route::all()],
            next_route: 0,
            treatments: Vec::new(),
            lane_next: [0; LANES],
            slowed: Slowed::new(),
            level: Duration::ZERO,
            since: Instant::FAR,
            residence: History::new(Instant::ZERO),
            store: SymbolStore::new(symbol_bytes, SYMBOLS),
            open: (0..GROUP_CLASSES).map(|_| OpenGroup::new()).collect(),
            planned: vec![0; GROUP_CLASSES],
            codec,
            repairs: Vec::with_capacity(REPAIR_MAX),
            protection: Protection::new(fec),
            spread: vec![[0; LINKS_MAX]; GROUP_CLASSES],
            late: Vec::with_capacity(GROUPS),
            sources: Vec::with_capacity(GROUP_SYMBOLS_MAX),
            scheduler,
            counts: SymbolCounts::default(),
        }
    }

    /// What is left of a frame that is being cut goes into shorter bodies.
    pub(super) fn limit_fragments(&mut self, body_bytes_max: usize) {
        for cutting in self
            .routes
            .iter_mut()
            .filter_map(|route| route.cutting.as_mut())
        {
            cutting.rest.limit(body_bytes_max);
        }
    }

    /// Whether anything waits for room on a link.
    pub(super) fn has_work(&self) -> bool {
        self.routes.iter().any(Route::has_work)
    }

    /// Flows that wait in the flow queues. Takes a look at each queue: for every few milliseconds.
    pub(super) fn waiting_flows(&self) -> usize {
        self.routes
            .iter()
            .map(|route| route.queue.waiting_flows())
            .sum()
    }

    /// Bytes waiting in the flow queues.
    pub(super) fn queued_bytes(&self) -> u64 {
        self.routes.iter().map(|route| route.queue.bytes()).sum()
    }

    /// Sets CoDel's target of all queues, and the round trip of what passes them.
    pub(super) fn set_queue_target(&mut self, target: Duration, round_trip: Duration) {
        for route in &mut self.routes {
            route.queue.set_target(target, round_trip);
        }
    }

    /// Makes open groups for all routes.
    pub(super) fn fit_groups(&mut self) {
        let slots = self.routes.len() * GROUP_CLASSES;
        self.open.resize_with(slots, OpenGroup::new);
        self.planned.resize(slots, 0);
        self.spread.resize(slots, [0; LINKS_MAX]);
    }

    /// Gives up what waits on a route; how many frames that were. Symbols that wait to be sent again stay in the store,
    /// which counts them when their group expires.
    pub(super) fn clear_route(&mut self, route: usize) -> u64 {
        let Self { routes, frames, .. } = self;
        let route = &mut routes[route];
        route.resend.clear();
        let mut count = 0;
        let cutting = route.cutting.take().map(|cutting| cutting.frame);
        let waiting = route.waiting.take().map(|taken| taken.frame);
        for frame in cutting.into_iter().chain(waiting) {
            frames.give(frame);
            count += 1;
        }
        route.queue.drain(|frame| {
            frames.give(frame);
            count += 1;
        });
        count
    }
}

impl Session {
    /// Takes a frame from the TUN: 10 bytes of virtio header and an IP packet.
    ///
    /// # Errors
    /// Why it was dropped; counted by the caller.
    pub fn handle_frame(&mut self, frame: &[u8], now: Instant) -> Result<(), DropReason> {
        let packet = frame.get(VIRTIO_BYTES..).ok_or(DropReason::NotIp)?;
        let ip = inner_ip::parse(packet)?;
        let hash = crate::flow::hash(&ip, self.flow_seed);
        let route = self.route_of(&ip)?;
        let bytes = u32::try_from(packet.len()).map_err(|_| DropReason::NotIp)?;
        let stored = self
            .egress
            .frames
            .store(frame)
            .ok_or(DropReason::NoBuffer)?;
        if let Some(max) = self.config.mss_max
            && mss::is_syn(&ip)
        {
            mss::clamp(self.egress.frames.bytes_mut(&stored), max);
        }
        self.accepted.0 += 1;
        self.accepted.1 += u64::from(bytes);
        let queue = &mut self.egress.routes[route].queue;
        let mut victim = queue.enqueue(hash, bytes, stored, now);
        while let Some(frame) = victim {
            self.drop_frame(frame, DropReason::QueueFull);
            victim = self.egress.routes[route].queue.shed();
        }
        Ok(())
    }

    /// Moves symbols to links as long as links have room.
    pub(super) fn commit(&mut self, now: Instant) {
        self.close_due_groups(now);
        self.drop_cut_off();
        if !self.egress.has_work() {
            self.set_backlogged(now);
            return;
        }
        self.refresh_candidates(now);
        self.refresh_queue_target(now);
        self.commit_resends(now);
        while let Some(route) = self.next_ready_route(now) {
            if self.egress.routes[route].cutting.is_some() {
                self.commit_fragment(route, now);
            } else {
                self.commit_next_frame(route, now);
            }
        }
        self.set_backlogged(now);
    }

    /// Puts the next frame, and small ones waiting behind it, into one body; or starts to cut it.
    fn commit_next_frame(&mut self, route: usize, now: Instant) {
        let Some(Taken {
            frame,
            hash,
            sparse,
            fast,
            since,
        }) = self.next_frame(route, now)
        else {
            return;
        };
        // What goes ahead of everything waits for nothing at the other end either.
        let lane = if sparse {
            Lane::UNORDERED
        } else {
            Lane::of_flow(hash)
        };
        let Ok(whole) = whole_len(self.egress.frames.bytes(&frame), false) else {
            self.egress.frames.give(frame);
            self.drops.count(DropReason::BadVirtio);
            return;
        };
        // Only from here on: the receiver waits for every number that was taken.
        let seq = self.next_lane_seq(lane);
        if !sparse {
            self.note_bulk(lane, frame.len(), now);
        }
        let fast = fast.then_some(hash);
        if whole > self.size.body_bytes {
            let rest = fragments(frame.len(), self.size.body_bytes);
            self.egress.routes[route].cutting = Some(Cutting {
                frame,
                rest,
                lane,
                seq,
                fast,
                since,
            });
            return;
        }
        let mut writer = BodyWriter::new();
        let written = self.write_body(&mut writer, lane, seq, &frame);
        debug_assert_eq!(written, Ok(true), "the length was compared above");
        self.egress.frames.give(frame);
        if let Some(hash) = fast {
            self.egress.slowed.note(hash);
        }
        if !sparse {
            self.bundle(route, &mut writer, now);
        }
        let bytes = writer.take();
        self.egress.since = since;
        self.commit_equalised(route, lane, bytes, sparse, now);
    }

    /// Fills a body with further frames of its route that wait anyway; those of sparse flows travel by themselves, because
    /// in a lane they would wait for others.
    fn bundle(&mut self, route: usize, writer: &mut BodyWriter, now: Instant) {
        while !writer.is_full() && !self.egress.routes[route].queue.is_empty() {
            let Some(taken) = self.next_frame(route, now) else {
                return;
            };
            let Taken {
                ref frame,
                hash,
                sparse,
                fast,
                ..
            } = taken;
            let fits = whole_len(self.egress.frames.bytes(frame), false)
                .is_ok_and(|whole| whole + writer.len() <= self.size.body_bytes);
            if sparse || !fits {
                self.egress.routes[route].waiting = Some(taken);
                return;
            }
            let lane = Lane::of_flow(hash);
            let seq = self.next_lane_seq(lane);
            self.note_bulk(lane, frame.len(), now);
            let _ = self.write_body(writer, lane, seq, frame);
            if fast {
                self.egress.slowed.note(hash);
            }
            self.egress.frames.give(taken.frame);
        }
    }

    /// Appends a frame to the body of the next source.
    fn write_body(
        &mut self,
        writer: &mut BodyWriter,
        lane: Lane,
        seq: u32,
        frame: &Frame,
    ) -> Result<bool, DropReason> {
        let Egress { frames, store, .. } = &mut self.egress;
        let room = &mut store.body_room()[..self.size.body_bytes];
        writer.push(room, lane, seq, frames.bytes(frame))
    }

    fn next_lane_seq(&mut self, lane: Lane) -> u32 {
        let next = &mut self.egress.lane_next[lane.index()];
        let seq = *next;
        *next = next.wrapping_add(1);
        seq
    }

    /// Commits the next fragment of the frame that is being cut.
    fn commit_fragment(&mut self, route: usize, now: Instant) {
        let Some(mut cutting) = self.egress.routes[route].cutting.take() else {
            return;
        };
        let Some(cut) = cutting.rest.next() else {
            self.egress.frames.give(cutting.frame);
            return;
        };
        let Egress { frames, store, .. } = &mut self.egress;
        let (lane, seq, frame) = (cutting.lane, cutting.seq, frames.bytes(&cutting.frame));
        let bytes = cut.emit(store.body_room(), lane, seq, frame);
        self.egress.since = cutting.since;
        if let Some(hash) = cutting.fast {
            self.egress.slowed.note(hash);
        }
        self.egress.routes[route].cutting = Some(cutting);
        self.commit_equalised(route, lane, bytes, false, now);
    }

    /// Commits a body of a lane with the delay that the lane gets. Routes that are bound to links have none to wait for.
    fn commit_equalised(
        &mut self,
        route: usize,
        lane: Lane,
        bytes: usize,
        sparse: bool,
        now: Instant,
    ) {
        if !sparse && self.scope(route) == Scope::All {
            self.egress.level = self.level_of(lane, now);
        }
        self.commit_body(route, bytes, sparse, now);
        self.egress.level = Duration::ZERO;
    }
}
