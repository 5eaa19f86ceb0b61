//! Frames of which some fragments have arrived.
//!
//! ```text
//! insert ──► Started ──► More ... ──► Complete (the frame leaves the table)
//!                 └── take (the wait is over: rescue what is whole) or discard
//! ```
//!
//! A bounded table; when it is full a new frame is refused and the caller decides whose wait ends
//! ([`Assembler::oldest`]). Fragments that overlap what is there, or disagree about the frame's length, are
//! dropped: senders cut a frame once and repeat fragments only as they were.
//!
//! Invariants: an entry's coverage is sorted, without overlap, and never touches itself; a complete frame is
//! never in the table.

use std::ops::Range;

use crate::base::{DropReason, FRAME_BYTES_MAX, Frame, FrameStore, Lane};

/// Frames in the making at one time. Superframes of 16 KiB that wait for one hole make 4 MiB: more than any
/// bandwidth-delay product this tunnel reorders over.
pub const PARTIALS_MAX: usize = 256;

/// Separate stretches of one frame. Losing every second of 45 fragments makes 23; more only come from hostile
/// or absurdly small fragments, which are dropped then.
pub const STRETCHES_MAX: usize = 64;

/// Names an entry of the table until it completes, is taken or discarded; stale names find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialId {
    index: u16,
    /// Which of all frames ever started; tells a stale name from the entry's present one.
    born: u64,
}

/// What a fragment did.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// The first fragment of its frame.
    Started(PartialId),
    /// One more.
    More(PartialId),
    /// The last one that was missing (or the only one); the frame is the caller's.
    Complete(Frame),
}

/// Table of partial frames.
#[derive(Debug)]
pub struct Assembler {
    /// As far as any was ever used.
    entries: Vec<Option<Entry>>,
    /// Keys parallel to `entries`, close together because they are searched.
    keys: Vec<u64>,
    /// Free places of the table.
    free: Vec<u16>,
    /// Where the last fragment went: most often the next one goes there too.
    last: usize,
    born: u64,
}

/// A frame taken out before it was complete.
#[derive(Debug)]
pub struct Partial {
    /// Order lane.
    pub lane: Lane,
    /// Lane sequence.
    pub seq: u32,
    /// Bytes outside of the coverage are what the slot's last owner left. Must be given back.
    pub frame: Frame,
    /// Which bytes arrived.
    pub coverage: Coverage,
}

#[derive(Debug)]
struct Entry {
    born: u64,
    frame: Frame,
    coverage: Coverage,
}

/// Key of a free place: no lane has this number.
const NO_KEY: u64 = u64::MAX;

impl Default for Assembler {
    fn default() -> Self {
        Self::new()
    }
}

impl Assembler {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            entries: Vec::with_capacity(PARTIALS_MAX),
            keys: vec![NO_KEY; PARTIALS_MAX],
            free: (0..PARTIALS_MAX)
                .rev()
                .filter_map(|i| u16::try_from(i).ok())
                .collect(),
            last: 0,
            born: 0,
        }
    }

    /// Puts a fragment into its frame. `seq` is the lane sequence as the caller numbers it, expanded or not.
    ///
    /// # Errors
    /// [`DropReason::BadFrame`] when it contradicts itself or its frame, [`DropReason::DuplicateFrame`] when its
    /// bytes were there already, [`DropReason::NoBuffer`] when the table or the store is full.
    pub fn insert(
        &mut self,
        store: &mut FrameStore,
        lane: Lane,
        seq: u32,
        frame_bytes: usize,
        offset: usize,
        bytes: &[u8],
    ) -> Result<Progress, DropReason> {
        let range = offset..offset.saturating_add(bytes.len());
        if range.is_empty() || range.end > frame_bytes || frame_bytes > FRAME_BYTES_MAX {
            return Err(DropReason::BadFrame);
        }
        let key = key_of(lane, seq);
        let Some(index) = self.find(key) else {
            return self.start(store, key, frame_bytes, range, bytes);
        };
        let Some(entry) = self.entries.get_mut(index).and_then(Option::as_mut) else {
            return Err(DropReason::NoBuffer);
        };
        if entry.frame.len() != frame_bytes {
            return Err(DropReason::BadFrame);
        }
        entry.coverage.insert(range.clone())?;
        store.bytes_mut(&entry.frame)[range].copy_from_slice(bytes);
        if entry.coverage.bytes() < frame_bytes {
            return Ok(Progress::More(self.id_of(index)));
        }
        self.remove(index)
            .map(|e| Progress::Complete(e.frame))
            .ok_or(DropReason::NoBuffer)
    }

    /// Takes an unfinished frame out, to rescue what is whole. `None` when the name is stale.
    pub fn take(&mut self, id: PartialId) -> Option<Partial> {
        let index = self.index_of(id)?;
        let key = self.keys[index];
        let Entry {
            frame, coverage, ..
        } = self.remove(index)?;
        let (lane, seq) = from_key(key);
        Some(Partial {
            lane,
            seq,
            frame,
            coverage,
        })
    }

    /// Gives an unfinished frame up. `false` when the name is stale.
    pub fn discard(&mut self, store: &mut FrameStore, id: PartialId) -> bool {
        let partial = self.take(id);
        partial.map(|p| store.give(p.frame)).is_some()
    }

    /// The frame that was started first, for a caller that needs a place in a full table.
    pub fn oldest(&self) -> Option<PartialId> {
        let born = |index: &usize| self.entries[*index].as_ref().map(|e| e.born);
        let index = (0..self.entries.len())
            .filter(|i| born(i).is_some())
            .min_by_key(born)?;
        Some(self.id_of(index))
    }

    /// Frames in the table.
    pub const fn len(&self) -> usize {
        PARTIALS_MAX - self.free.len()
    }

    /// Whether the table is empty.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn start(
        &mut self,
        store: &mut FrameStore,
        key: u64,
        frame_bytes: usize,
        range: Range<usize>,
        bytes: &[u8],
    ) -> Result<Progress, DropReason> {
        if range.len() == frame_bytes {
            return store
                .store(bytes)
                .map(Progress::Complete)
                .ok_or(DropReason::NoBuffer);
        }
        let index = usize::from(*self.free.last().ok_or(DropReason::NoBuffer)?);
        let frame = store.take(frame_bytes).ok_or(DropReason::NoBuffer)?;
        store.bytes_mut(&frame)[range.clone()].copy_from_slice(bytes);
        self.free.pop();
        self.born += 1;
        let mut coverage = Coverage::default();
        coverage.insert(range)?; // Cannot fail: an empty coverage takes any stretch.
        while self.entries.len() <= index {
            self.entries.push(None);
        }
        self.entries[index] = Some(Entry {
            born: self.born,
            frame,
            coverage,
        });
        self.keys[index] = key;
        self.last = index;
        Ok(Progress::Started(self.id_of(index)))
    }

    fn find(&mut self, key: u64) -> Option<usize> {
        if self.keys[self.last] != key {
            self.last = self.keys.iter().position(|k| *k == key)?;
        }
        Some(self.last)
    }

    fn remove(&mut self, index: usize) -> Option<Entry> {
        let entry = self.entries[index].take()?;
        self.keys[index] = NO_KEY;
        self.free.extend(u16::try_from(index));
        Some(entry)
    }

    fn id_of(&self, index: usize) -> PartialId {
        let born = self.entries[index].as_ref().map_or(0, |e| e.born);
        PartialId {
            index: u16::try_from(index).unwrap_or(u16::MAX),
            born,
        }
    }

    fn index_of(&self, id: PartialId) -> Option<usize> {
        let index = usize::from(id.index);
        let entry = self.entries.get(index)?.as_ref()?;
        (entry.born == id.born).then_some(index)
    }
}

const fn key_of(lane: Lane, seq: u32) -> u64 {
    (lane.0 as u64) << 32 | seq as u64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "taken apart as it was put together"
)]
const fn from_key(key: u64) -> (Lane, u32) {
    (Lane((key >> 32) as u8), key as u32)
}

/// Which bytes of a frame have arrived: sorted stretches.
#[derive(Clone, Debug)]
pub struct Coverage {
    stretches: [(u32, u32); STRETCHES_MAX],
    count: usize,
    bytes: usize,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            stretches: [(0, 0); STRETCHES_MAX],
            count: 0,
            bytes: 0,
        }
    }
}

impl Coverage {
    /// Adds a stretch that must not overlap what is there.
    ///
    /// # Errors
    /// [`DropReason::DuplicateFrame`] when all of it is there, [`DropReason::BadFrame`] when a part is,
    /// [`DropReason::NoBuffer`] when there are too many stretches.
    pub fn insert(&mut self, range: Range<usize>) -> Result<(), DropReason> {
        let (Ok(start), Ok(end)) = (u32::try_from(range.start), u32::try_from(range.end)) else {
            return Err(DropReason::BadFrame);
        };
        // The first stretch that does not end before the new one begins.
        let held = &self.stretches[..self.count];
        let at = held.partition_point(|s| s.1 < start);
        let mut next = at;
        if held.get(at).is_some_and(|s| s.1 == start) {
            next += 1;
        }
        for &(from, to) in held[at..].iter().take(2) {
            if from < end && start < to {
                let inside = from <= start && end <= to;
                return Err(if inside {
                    DropReason::DuplicateFrame
                } else {
                    DropReason::BadFrame
                });
            }
        }
        let joins_before = next > at;
        let joins_after = held.get(next).is_some_and(|s| s.0 == end);
        match (joins_before, joins_after) {
            (true, true) => {
                self.stretches[at].1 = self.stretches[next].1;
                self.stretches.copy_within(next + 1..self.count, next);
                self.count -= 1;
            }
            (true, false) => self.stretches[at].1 = end,
            (false, true) => self.stretches[next].0 = start,
            (false, false) if self.count == STRETCHES_MAX => return Err(DropReason::NoBuffer),
            (false, false) => {
                self.stretches.copy_within(at..self.count, at + 1);
                self.stretches[at] = (start, end);
                self.count += 1;
            }
        }
        self.bytes += range.len();
        Ok(())
    }

    /// Bytes covered.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The stretches, in order; neighbours do not touch.
    pub fn stretches(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.stretches[..self.count]
            .iter()
            .map(|s| s.0 as usize..s.1 as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use proptest::prelude::*;

    const LANE: Lane = Lane(3);

    #[test]
    fn interleaved_frames_in_any_order_become_whole() {
        let mut rng = Rng::new(9);
        let (mut store, mut table) = (FrameStore::default(), Assembler::new());
        let frames: Vec<Vec<u8>> = (0..200_usize)
            .map(|i| {
                (0..100 + i * 300)
                    .map(|j| (i + j).to_le_bytes()[0])
                    .collect()
            })
            .collect();
        let mut arrivals: Vec<(u64, usize, usize)> = Vec::new();
        for (i, frame) in frames.iter().enumerate() {
            for offset in (0..frame.len()).step_by(1389) {
                // Reordered among neighbours.
                arrivals.push(((i as u64) * 20 + rng.below(1000), i, offset));
            }
        }
        arrivals.sort_unstable();
        let mut complete = 0;
        for (_, i, offset) in arrivals {
            let end = frames[i].len().min(offset + 1389);
            let seq = u32::try_from(i).unwrap();
            let part = &frames[i][offset..end];
            match table
                .insert(&mut store, LANE, seq, frames[i].len(), offset, part)
                .unwrap()
            {
                Progress::Complete(frame) => {
                    assert_eq!(store.bytes(&frame), frames[i]);
                    store.give(frame);
                    complete += 1;
                }
                Progress::Started(id) | Progress::More(id) => assert!(table.index_of(id).is_some()),
            }
        }
        assert_eq!((complete, table.len(), store.used()), (200, 0, 0));
    }

    #[test]
    fn contradicting_fragments_are_dropped() {
        let (mut store, mut table) = (FrameStore::default(), Assembler::new());
        let mut put = |frame_bytes, offset, len| {
            table.insert(&mut store, LANE, 1, frame_bytes, offset, &[7; 100][..len])
        };
        assert!(matches!(put(100, 20, 20), Ok(Progress::Started(_))));
        for (frame_bytes, offset, len, reason) in [
            (100, 20, 20, DropReason::DuplicateFrame),
            (100, 25, 5, DropReason::DuplicateFrame),
            (100, 15, 10, DropReason::BadFrame),
            (100, 39, 2, DropReason::BadFrame),
            (100, 0, 90, DropReason::BadFrame),
            (101, 40, 10, DropReason::BadFrame),
            (100, 90, 11, DropReason::BadFrame),
            (100, 40, 0, DropReason::BadFrame),
            (100, usize::MAX, 2, DropReason::BadFrame),
            (usize::MAX, 0, 2, DropReason::BadFrame),
        ] {
            assert_eq!(put(frame_bytes, offset, len), Err(reason), "{offset} {len}");
        }
        assert!(matches!(put(100, 40, 60), Ok(Progress::More(_))));
        assert!(matches!(put(100, 0, 20), Ok(Progress::Complete(_))));
    }

    #[test]
    fn a_full_table_names_its_oldest_frame_and_stale_names_find_nothing() {
        let (mut store, mut table) = (FrameStore::default(), Assembler::new());
        let mut ids = Vec::new();
        for seq in 0..256 {
            match table.insert(&mut store, LANE, seq, 50, 0, &[1; 10]) {
                Ok(Progress::Started(id)) => ids.push(id),
                other => panic!("{other:?}"),
            }
        }
        let full = table.insert(&mut store, LANE, 256, 50, 0, &[1; 10]);
        assert_eq!((full, store.used()), (Err(DropReason::NoBuffer), 256));
        assert_eq!(table.oldest(), Some(ids[0]));
        assert!(table.discard(&mut store, ids[0]) && !table.discard(&mut store, ids[0]));
        assert!(table.insert(&mut store, LANE, 256, 50, 0, &[1; 10]).is_ok());
        assert!(table.take(ids[0]).is_none());
        assert_eq!(table.oldest(), Some(ids[1]));
        let partial = table.take(ids[7]).unwrap();
        assert_eq!(
            (partial.lane, partial.seq, partial.frame.len()),
            (LANE, 7, 50)
        );
        assert!(partial.coverage.stretches().eq(std::iter::once(0..10)));
        store.give(partial.frame);
        assert_eq!((table.len(), store.used()), (255, 255));
    }

    #[test]
    fn too_many_stretches_are_refused() {
        let mut coverage = Coverage::default();
        (0..STRETCHES_MAX).for_each(|i| coverage.insert(i * 10..i * 10 + 5).unwrap());
        assert_eq!(coverage.insert(2_000..2_001), Err(DropReason::NoBuffer));
        assert_eq!(coverage.insert(5..10), Ok(()));
        assert_eq!(coverage.insert(2_000..2_001), Ok(()));
    }

    proptest! {
        #[test]
        fn coverage_equals_a_set_of_bytes(ranges in proptest::collection::vec((0..100_usize, 1..9_usize), 0..60)) {
            let mut coverage = Coverage::default();
            let mut model = [false; 110];
            for (start, len) in ranges {
                let there = model[start..start + len].iter().filter(|b| **b).count();
                let outcome = coverage.insert(start..start + len);
                match there {
                    0 => { prop_assert_eq!(outcome, Ok(())); model[start..start + len].fill(true); }
                    n if n == len => prop_assert_eq!(outcome, Err(DropReason::DuplicateFrame)),
                    _ => prop_assert_eq!(outcome, Err(DropReason::BadFrame)),
                }
                let mut got = [false; 110];
                let mut last = None;
                for stretch in coverage.stretches() {
                    prop_assert!(last.is_none_or(|l| l < stretch.start));
                    last = Some(stretch.end);
                    got[stretch].fill(true);
                }
                prop_assert_eq!(got, model);
                prop_assert_eq!(coverage.bytes(), model.iter().filter(|b| **b).count());
            }
        }
    }
}
