//! The Reed-Solomon code itself: reed-solomon-simd with an erasure locator made for small groups.
//!
//! The only file that says "shard": elsewhere these are symbols. It knows nothing of groups, ids or time, and
//! it trusts what it is given: one wrong symbol makes every recovered symbol of its group wrong and nothing
//! here notices, so only authenticated symbols may come this far.
//!
//! What a shard is: `[body length u16][body]`, virtually padded with zeros to the group's symbol size.
//!
//! Why an own engine: the library evaluates the erasure locator with two Walsh-Hadamard transforms over all
//! 65 536 elements of its field, 240-350 us for a group of any size. With n <= 511 positions in use and e of
//! them erased, the sum of n * e logarithms gives the same numbers in about a microsecond.
//!
//! ```text
//! locator[i] = sum over erased j != i of log(i ^ j)   (mod 65535)
//! ```
//!
//! Always the library's high-rate layout (repair first, then sources): it exists for every k and r up to 255
//! and keeps the locator short, while the low-rate layout marks all unused positions as erased, which needs
//! the transforms again. In it a row (a repair symbol) depends on the number of rows only by the power of two
//! above that number, so a group that was closed can still get further rows.
//!
//! Invariant: no allocation once the largest shape was seen ([`Codec::reserve`] shows it one), or after the first use of
//! each way to compute where that shape was announced ([`Codec::expect`]).

use std::fmt;
use std::ops::Range;

use reed_solomon_simd::engine::{
    DefaultEngine, Engine, GF_MODULUS, GF_ORDER, GfElement, ShardsRefMut, tables, utils,
};
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

use super::GROUP_SYMBOLS_MAX;
use super::direct::{Direct, SUMS_MAX};
use super::way::{Way, are_sound, lost_of, way_to_encode, way_to_recover};

/// Encoder and decoder with their working memory.
pub struct Codec {
    encoder: HighRateEncoder<DirectLocator>,
    decoder: HighRateDecoder<DirectLocator>,
    /// One shard: where a short symbol gets its padding.
    padded: Vec<u8>,
    direct: Direct,
    /// What was loaded last, as far as rows can be computed from it.
    loaded: Option<Loaded>,
    expected: Expected,
}

/// Sources, repair symbols and bytes of a symbol.
type Shape = (usize, usize, usize);

/// What the parts of the working memory are to have room for when they are used for the first time.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    sums: Option<Shape>,
    encoder: Option<Shape>,
    decoder: Option<Shape>,
}

/// Sources that the encoder has.
#[derive(Clone, Debug)]
struct Loaded {
    way: Way,
    symbol_bytes: usize,
    /// Rows that can be emitted.
    rows: Range<usize>,
}

/// A shape or a set of symbols that the code cannot work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No source or no repair symbol, more than 255 of both, or a symbol size that is odd or zero.
    #[error("the code has no group of this shape")]
    Shape,
    /// A symbol longer than the group's symbols, of an index outside of the group, or given twice.
    #[error("a symbol does not belong into its group")]
    Symbol,
    /// Fewer symbols than sources.
    #[error("not enough symbols to recover from")]
    TooFew,
}

/// Any valid shape, for the time before the first group.
const FIRST_SHAPE: Shape = (1, 1, 2);

impl Codec {
    /// A codec without working memory. Builds the library's tables (8 MiB, once for the process).
    ///
    /// # Panics
    /// Never: the first shape is valid.
    pub fn new() -> Self {
        let (k, r, bytes) = FIRST_SHAPE;
        Self {
            encoder: HighRateEncoder::new(k, r, bytes, DirectLocator::new(), None)
                .expect("the first shape is valid"),
            decoder: HighRateDecoder::new(k, r, bytes, DirectLocator::new(), None)
                .expect("the first shape is valid"),
            padded: Vec::new(),
            direct: Direct::new(),
            loaded: None,
            expected: Expected::default(),
        }
    }

    /// Announces the largest shape that is usual: working memory grows to it when it is first used. A tunnel that idles
    /// computes nothing, and one without losses decodes nothing.
    ///
    /// # Errors
    /// [`CodecError::Shape`].
    pub const fn expect(
        &mut self,
        source_count: usize,
        repair_count: usize,
        symbol_bytes: usize,
    ) -> Result<(), CodecError> {
        let shape = Some((source_count, repair_count, symbol_bytes));
        self.expected = Expected {
            sums: shape,
            encoder: shape,
            decoder: shape,
        };
        check_shape(source_count, repair_count, symbol_bytes)
    }

    fn grow_sums(&mut self) {
        if let Some((_, _, symbol_bytes)) = self.expected.sums.take() {
            self.padded.resize(self.padded.len().max(symbol_bytes), 0);
            self.direct.reserve(symbol_bytes);
        }
    }

    /// Grows the working memory so that groups up to this shape need no allocation.
    ///
    /// # Errors
    /// [`CodecError::Shape`].
    pub fn reserve(
        &mut self,
        source_count: usize,
        repair_count: usize,
        symbol_bytes: usize,
    ) -> Result<(), CodecError> {
        self.reserve_encoder(source_count, repair_count, symbol_bytes)?;
        self.decoder
            .reset(source_count, repair_count, symbol_bytes)
            .map_err(shape)
    }

    /// The same for who only encodes.
    ///
    /// # Errors
    /// [`CodecError::Shape`].
    pub fn reserve_encoder(
        &mut self,
        source_count: usize,
        repair_count: usize,
        symbol_bytes: usize,
    ) -> Result<(), CodecError> {
        check_shape(source_count, repair_count, symbol_bytes)?;
        self.padded.resize(self.padded.len().max(symbol_bytes), 0);
        self.direct.reserve(symbol_bytes);
        self.encoder
            .reset(source_count, repair_count, symbol_bytes)
            .map_err(shape)
    }

    /// Computes all repair symbols of a group that can have no others, and gives them to `emit` with their index.
    ///
    /// # Errors
    /// [`CodecError::Shape`] or [`CodecError::Symbol`]; nothing was emitted then.
    pub fn encode<'a>(
        &mut self,
        sources: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
        repair_count: usize,
        symbol_bytes: usize,
        emit: impl FnMut(usize, &[u8]),
    ) -> Result<(), CodecError> {
        self.load(sources, repair_count, 0..repair_count, symbol_bytes)?;
        self.emit_rows(emit)
    }

    /// Takes the sources of a group, of which these rows are wanted. `code_rows` is how many the group may ever have: what
    /// a row holds depends on it and not on which rows are computed when, so that more of them can follow. Sources come in
    /// order, each protected (`[length][body]`) and at most `symbol_bytes` long.
    ///
    /// # Errors
    /// [`CodecError::Shape`] or [`CodecError::Symbol`]; there are no rows then.
    pub fn load<'a>(
        &mut self,
        sources: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
        code_rows: usize,
        rows: Range<usize>,
        symbol_bytes: usize,
    ) -> Result<(), CodecError> {
        self.loaded = None;
        check_shape(sources.len(), code_rows, symbol_bytes)?;
        if rows.end > code_rows {
            return Err(CodecError::Shape);
        }
        let way = way_to_encode(sources.len(), code_rows, rows.len());
        if sources.clone().any(|source| source.len() > symbol_bytes) {
            return Err(CodecError::Symbol);
        }
        self.grow_sums();
        match way {
            Way::Copy => {
                for source in sources {
                    copy_padded(&mut self.padded, source, symbol_bytes)?;
                }
            }
            Way::Direct => self
                .direct
                .encode(sources, code_rows, rows.clone(), symbol_bytes),
            Way::Transform => self.add_sources(sources, code_rows, rows.end, symbol_bytes)?,
        }
        self.loaded = Some(Loaded {
            way,
            symbol_bytes,
            rows,
        });
        Ok(())
    }

    fn add_sources<'a>(
        &mut self,
        sources: impl ExactSizeIterator<Item = &'a [u8]>,
        code_rows: usize,
        row_end: usize,
        symbol_bytes: usize,
    ) -> Result<(), CodecError> {
        // The library's rows depend on their number only by the power of two that it is rounded up to.
        let computed = row_end.max(code_rows.next_power_of_two() / 2 + 1);
        if let Some((k, r, bytes)) = self.expected.encoder.take() {
            self.encoder.reset(k, r, bytes).map_err(shape)?;
        }
        self.encoder
            .reset(sources.len(), computed, symbol_bytes)
            .map_err(shape)?;
        for source in sources {
            let source = pad(&mut self.padded, source, symbol_bytes)?;
            self.encoder
                .add_original_shard(source)
                .map_err(|_| CodecError::Symbol)?;
        }
        Ok(())
    }

    /// Gives the repair symbols of the group that was loaded, each as long as the group's symbols, to `emit` with their
    /// index, once. The repair of a single source is its copy.
    ///
    /// # Errors
    /// [`CodecError::TooFew`] when nothing is loaded; nothing was emitted then.
    pub fn emit_rows(&mut self, mut emit: impl FnMut(usize, &[u8])) -> Result<(), CodecError> {
        let Loaded {
            way,
            symbol_bytes,
            mut rows,
        } = self.loaded.take().ok_or(CodecError::TooFew)?;
        match way {
            Way::Copy => rows.for_each(|index| emit(index, &self.padded[..symbol_bytes])),
            Way::Direct => self.direct.rows(rows, symbol_bytes, emit),
            Way::Transform => {
                let repairs = self.encoder.encode().map_err(|_| CodecError::TooFew)?;
                let wanted = repairs.recovery_iter().enumerate().skip(rows.start);
                wanted
                    .zip(&mut rows)
                    .for_each(|((index, repair), _)| emit(index, repair));
            }
        }
        Ok(())
    }

    /// Computes the sources that are missing from at least `source_count` symbols and gives them, padded to
    /// `symbol_bytes`, to `emit` with their index.
    ///
    /// # Errors
    /// [`CodecError`]; nothing was emitted then.
    pub fn recover<'a>(
        &mut self,
        source_count: usize,
        repair_count: usize,
        symbol_bytes: usize,
        sources: impl Iterator<Item = (usize, &'a [u8])> + Clone,
        repairs: impl Iterator<Item = (usize, &'a [u8])> + Clone,
        mut emit: impl FnMut(usize, &[u8]),
    ) -> Result<(), CodecError> {
        check_shape(source_count, repair_count, symbol_bytes)?;
        self.grow_sums();
        if source_count == 1 {
            return self.recover_copy(symbol_bytes, sources, repairs, emit);
        }
        let mut room = [0; SUMS_MAX];
        let lost = lost_of(source_count, sources.clone(), &mut room);
        let enough = |lost: &[usize]| repairs.clone().take(lost.len()).count() == lost.len();
        if let Some(lost) = lost
            && way_to_recover(source_count, repair_count, lost.len()) == Way::Direct
            && enough(lost)
            && are_sound(repairs.clone(), repair_count, symbol_bytes)
            && are_sound(sources.clone(), source_count, symbol_bytes)
        {
            let shape = (source_count, repair_count, symbol_bytes);
            self.direct.recover(shape, sources, repairs, lost, emit);
            return Ok(());
        }
        if let Some((k, r, bytes)) = self.expected.decoder.take() {
            self.decoder.reset(k, r, bytes).map_err(shape)?;
        }
        self.decoder
            .reset(source_count, repair_count, symbol_bytes)
            .map_err(shape)?;
        for (index, source) in sources {
            let source = pad(&mut self.padded, source, symbol_bytes)?;
            self.decoder
                .add_original_shard(index, source)
                .map_err(|_| CodecError::Symbol)?;
        }
        for (index, repair) in repairs {
            let repair = pad(&mut self.padded, repair, symbol_bytes)?;
            self.decoder
                .add_recovery_shard(index, repair)
                .map_err(|_| CodecError::Symbol)?;
        }
        let recovered = self.decoder.decode().map_err(|_| CodecError::TooFew)?;
        for (index, source) in recovered.restored_original_iter() {
            emit(index, source);
        }
        Ok(())
    }

    /// The group of one: every repair symbol is the source.
    fn recover_copy<'a>(
        &mut self,
        symbol_bytes: usize,
        mut sources: impl Iterator<Item = (usize, &'a [u8])>,
        mut repairs: impl Iterator<Item = (usize, &'a [u8])>,
        mut emit: impl FnMut(usize, &[u8]),
    ) -> Result<(), CodecError> {
        if sources.next().is_none() {
            let (_, repair) = repairs.next().ok_or(CodecError::TooFew)?;
            emit(0, pad(&mut self.padded, repair, symbol_bytes)?);
        }
        Ok(())
    }
}

impl Default for Codec {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

const fn check_shape(
    source_count: usize,
    repair_count: usize,
    symbol_bytes: usize,
) -> Result<(), CodecError> {
    let fits = source_count > 0
        && repair_count > 0
        && source_count <= GROUP_SYMBOLS_MAX
        && repair_count <= GROUP_SYMBOLS_MAX
        && source_count + repair_count <= GROUP_SYMBOLS_MAX
        && symbol_bytes > 0
        && symbol_bytes.is_multiple_of(2);
    if fits { Ok(()) } else { Err(CodecError::Shape) }
}

fn shape(_: reed_solomon_simd::Error) -> CodecError {
    CodecError::Shape
}

/// The symbol at full length: itself, or its copy in `room` with zeros behind.
fn pad<'s>(
    room: &'s mut Vec<u8>,
    symbol: &'s [u8],
    symbol_bytes: usize,
) -> Result<&'s [u8], CodecError> {
    if symbol.len() == symbol_bytes {
        return Ok(symbol);
    }
    copy_padded(room, symbol, symbol_bytes)
}

/// The symbol's copy in `room` with zeros behind.
fn copy_padded<'s>(
    room: &'s mut Vec<u8>,
    symbol: &[u8],
    symbol_bytes: usize,
) -> Result<&'s [u8], CodecError> {
    if symbol.len() > symbol_bytes {
        return Err(CodecError::Symbol);
    }
    if room.len() < symbol_bytes {
        room.resize(symbol_bytes, 0);
    }
    let padded = &mut room[..symbol_bytes];
    padded[..symbol.len()].copy_from_slice(symbol);
    padded[symbol.len()..].fill(0);
    Ok(padded)
}

/// The library's best engine for this CPU, with the locator of the module's head.
struct DirectLocator(DefaultEngine);

/// Longest locator evaluated directly: 255 repair positions rounded up to a power of two, and 255 sources.
const LOCATOR_LEN_MAX: usize = 512;
const _: () = assert!(GROUP_SYMBOLS_MAX.next_power_of_two() + GROUP_SYMBOLS_MAX <= LOCATOR_LEN_MAX);

impl DirectLocator {
    fn new() -> Self {
        Self(DefaultEngine::new())
    }
}

impl Engine for DirectLocator {
    fn fft(
        &self,
        data: &mut ShardsRefMut<'_>,
        pos: usize,
        size: usize,
        truncated_size: usize,
        skew_delta: usize,
    ) {
        self.0.fft(data, pos, size, truncated_size, skew_delta);
    }

    fn ifft(
        &self,
        data: &mut ShardsRefMut<'_>,
        pos: usize,
        size: usize,
        truncated_size: usize,
        skew_delta: usize,
    ) {
        self.0.ifft(data, pos, size, truncated_size, skew_delta);
    }

    fn mul(&self, x: &mut [[u8; 64]], log_m: GfElement) {
        self.0.mul(x, log_m);
    }

    /// `erasures` holds 1 at each erased position and becomes the locator's logarithm at each position below
    /// `truncated_size`; nobody reads the rest.
    fn eval_poly(erasures: &mut [GfElement; GF_ORDER], truncated_size: usize) {
        if truncated_size > LOCATOR_LEN_MAX {
            // The low-rate layout: as many erasures as the field has elements.
            return utils::eval_poly(erasures, truncated_size);
        }
        let log = &tables::get_exp_log().log;
        let (mut erased, mut count) = ([0_u16; LOCATOR_LEN_MAX], 0);
        for (position, &mark) in (0_u16..).zip(&erasures[..truncated_size]) {
            if mark != 0 {
                erased[count] = position;
                count += 1;
            }
        }
        for (position, value) in (0_u16..).zip(&mut erasures[..truncated_size]) {
            // At most 512 * 65535: no overflow. The table says 65535 for log(0), which is 0 here: an erased
            // position has no factor of its own.
            let sum: u32 = erased[..count]
                .iter()
                .map(|&other| u32::from(log[usize::from(position ^ other)]))
                .sum();
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a remainder of 65535 fits 16 bits"
            )]
            let reduced = (sum % u32::from(GF_MODULUS)) as GfElement;
            *value = reduced;
        }
    }
}

#[cfg(test)]
mod tests;
