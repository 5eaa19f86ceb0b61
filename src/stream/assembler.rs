//! Frames of which some fragments have arrived.
//!
//! ```text
//! insert ──► Started ──► More ... ──► Complete (the frame leaves the table)
//!                 └── set_overdue (the wait is over) ──► Overdue ... ──► take or discard
//! ```
//!
//! Of an overdue frame its owner has handed out what was whole. What still comes belongs to it all the same: to the inner
//! TCP a late segment is far better than none.
//!
//! A bounded table; when it is full a new frame is refused and the caller decides whose wait ends
//! ([`Assembler::oldest`]). Fragments that overlap what is there, or disagree about the frame's length, are
//! dropped: senders cut a frame once and repeat fragments only as they were.
//!
//! Invariant: a complete frame is never in the table, unless it is overdue.

use std::ops::Range;

use super::coverage::Coverage;
use crate::base::{DropReason, FRAME_BYTES_MAX, Frame, FrameStore, Lane};

/// Frames in the making at one time. Superframes of 16 KiB that wait for one hole make 4 MiB: more than any
/// bandwidth-delay product this tunnel reorders over.
pub const PARTIALS_MAX: usize = 256;

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
    /// One of a frame that is waited for no more, perhaps the last.
    Overdue(PartialId),
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

/// A frame that is not complete, or overdue.
#[derive(Debug)]
pub struct Partial<'a> {
    /// Bytes outside of the coverage are what the slot's last owner left.
    pub frame: &'a Frame,
    /// Which bytes arrived.
    pub coverage: &'a Coverage,
    /// What its owner noted ([`Assembler::set_begun`]).
    pub begun: bool,
}

impl Partial<'_> {
    /// Whether all of it arrived.
    pub const fn is_complete(&self) -> bool {
        self.coverage.bytes() == self.frame.len()
    }
}

#[derive(Debug)]
struct Entry {
    born: u64,
    frame: Frame,
    coverage: Coverage,
    overdue: bool,
    begun: bool,
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
        if entry.overdue {
            return Ok(Progress::Overdue(self.id_of(index)));
        }
        if entry.coverage.bytes() < frame_bytes {
            return Ok(Progress::More(self.id_of(index)));
        }
        self.remove(index)
            .map(|e| Progress::Complete(e.frame))
            .ok_or(DropReason::NoBuffer)
    }

    /// Says that a frame is waited for no more; what still comes of it is [`Progress::Overdue`]. `false` when the name is
    /// stale.
    pub fn set_overdue(&mut self, id: PartialId) -> bool {
        let entry = self.entry_mut(id);
        entry.map(|entry| entry.overdue = true).is_some()
    }

    /// Notes that parts of an overdue frame have been handed out.
    pub fn set_begun(&mut self, id: PartialId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.begun = true;
        }
    }

    /// What there is of a frame. `None` when the name is stale.
    pub fn partial(&self, id: PartialId) -> Option<Partial<'_>> {
        let entry = self.entries[self.index_of(id)?].as_ref()?;
        Some(Partial {
            frame: &entry.frame,
            coverage: &entry.coverage,
            begun: entry.begun,
        })
    }

    /// Takes a frame out as it is; it must be given back to its store. `None` when the name is stale.
    pub fn take(&mut self, id: PartialId) -> Option<Frame> {
        let index = self.index_of(id)?;
        self.remove(index).map(|entry| entry.frame)
    }

    /// Gives an unfinished frame up. `false` when the name is stale.
    pub fn discard(&mut self, store: &mut FrameStore, id: PartialId) -> bool {
        let frame = self.take(id);
        frame.map(|frame| store.give(frame)).is_some()
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
            overdue: false,
            begun: false,
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

    fn entry_mut(&mut self, id: PartialId) -> Option<&mut Entry> {
        let index = self.index_of(id)?;
        self.entries[index].as_mut()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

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
                Progress::Overdue(id) => panic!("{id:?} is waited for"),
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
        let frame = table.take(ids[7]).unwrap();
        assert_eq!(frame.len(), 50);
        store.give(frame);
        assert_eq!((table.len(), store.used()), (255, 255));
    }

    #[test]
    fn an_overdue_frame_stays_until_it_is_taken() {
        let (mut store, mut table) = (FrameStore::default(), Assembler::new());
        let Ok(Progress::Started(id)) = table.insert(&mut store, LANE, 4, 30, 0, &[1; 10]) else {
            panic!("nothing of it was there");
        };
        assert!(table.set_overdue(id));
        let mut put = |offset| table.insert(&mut store, LANE, 4, 30, offset, &[2; 10]);
        assert_eq!(put(20), Ok(Progress::Overdue(id)));
        assert_eq!(put(0), Err(DropReason::DuplicateFrame));
        let partial = table.partial(id).unwrap();
        assert!(!partial.is_complete() && !partial.begun);
        assert!(partial.coverage.stretches().eq([0..10, 20..30]));
        table.set_begun(id);
        let last = table.insert(&mut store, LANE, 4, 30, 10, &[3; 10]);
        assert_eq!(last, Ok(Progress::Overdue(id)));
        let partial = table.partial(id).unwrap();
        assert!(partial.is_complete() && partial.begun);
        let frame = table.take(id).unwrap();
        let bytes = [[1; 10], [3; 10], [2; 10]].concat();
        assert_eq!(store.bytes(&frame), bytes);
        store.give(frame);
        assert!(!table.set_overdue(id) && table.partial(id).is_none());
        assert_eq!((table.len(), store.used()), (0, 0));
    }
}
