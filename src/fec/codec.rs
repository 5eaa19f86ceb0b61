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
//! the transforms again.
//!
//! Invariant: no allocation once the largest shape was seen ([`Codec::reserve`] shows it one).

use std::fmt;

use reed_solomon_simd::engine::{
    DefaultEngine, Engine, GF_MODULUS, GF_ORDER, GfElement, ShardsRefMut, tables, utils,
};
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

use super::GROUP_SYMBOLS_MAX;

/// Encoder and decoder with their working memory.
pub struct Codec {
    encoder: HighRateEncoder<DirectLocator>,
    decoder: HighRateDecoder<DirectLocator>,
    /// One shard: where a short symbol gets its padding.
    padded: Vec<u8>,
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
const FIRST_SHAPE: (usize, usize, usize) = (1, 1, 2);

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
        check_shape(source_count, repair_count, symbol_bytes)?;
        self.padded.resize(self.padded.len().max(symbol_bytes), 0);
        self.encoder
            .reset(source_count, repair_count, symbol_bytes)
            .map_err(shape)?;
        self.decoder
            .reset(source_count, repair_count, symbol_bytes)
            .map_err(shape)
    }

    /// Computes the repair symbols of a group, each of `symbol_bytes`, and gives them to `emit` with their
    /// index from 0. Sources come in order, each protected (`[length][body]`) and at most `symbol_bytes` long.
    /// The repair of a single source is its copy.
    ///
    /// # Errors
    /// [`CodecError::Shape`] or [`CodecError::Symbol`]; nothing was emitted then.
    pub fn encode<'a>(
        &mut self,
        sources: impl ExactSizeIterator<Item = &'a [u8]>,
        repair_count: usize,
        symbol_bytes: usize,
        mut emit: impl FnMut(usize, &[u8]),
    ) -> Result<(), CodecError> {
        let source_count = sources.len();
        check_shape(source_count, repair_count, symbol_bytes)?;
        if source_count > 1 {
            self.encoder
                .reset(source_count, repair_count, symbol_bytes)
                .map_err(shape)?;
        }
        for source in sources {
            let source = pad(&mut self.padded, source, symbol_bytes)?;
            if source_count == 1 {
                (0..repair_count).for_each(|index| emit(index, source));
                return Ok(());
            }
            self.encoder
                .add_original_shard(source)
                .map_err(|_| CodecError::Symbol)?;
        }
        let repairs = self.encoder.encode().map_err(|_| CodecError::TooFew)?;
        for (index, repair) in repairs.recovery_iter().enumerate() {
            emit(index, repair);
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
        sources: impl Iterator<Item = (usize, &'a [u8])>,
        repairs: impl Iterator<Item = (usize, &'a [u8])>,
        mut emit: impl FnMut(usize, &[u8]),
    ) -> Result<(), CodecError> {
        check_shape(source_count, repair_count, symbol_bytes)?;
        if source_count == 1 {
            return self.recover_copy(symbol_bytes, sources, repairs, emit);
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
mod tests {
    use super::*;
    use crate::base::Rng;

    type StockDecoder = HighRateDecoder<DefaultEngine>;
    type StockEncoder = HighRateEncoder<DefaultEngine>;

    fn below(rng: &mut Rng, bound: usize) -> usize {
        usize::try_from(rng.below(bound as u64)).unwrap()
    }

    fn random_symbols(rng: &mut Rng, count: usize, bytes: usize) -> Vec<Vec<u8>> {
        let mut symbol = || {
            (0..bytes)
                .map(|_| rng.next_u64().to_le_bytes()[0])
                .collect()
        };
        (0..count).map(|_| symbol()).collect()
    }

    fn encode(codec: &mut Codec, sources: &[Vec<u8>], r: usize, bytes: usize) -> Vec<Vec<u8>> {
        let mut repairs = Vec::new();
        let iter = sources.iter().map(Vec::as_slice);
        codec
            .encode(iter, r, bytes, |index, repair| {
                assert_eq!(index, repairs.len());
                repairs.push(repair.to_vec());
            })
            .unwrap();
        repairs
    }

    /// Draws a set of exactly `count` of `0..of`.
    fn draw(rng: &mut Rng, count: usize, of: usize) -> Vec<bool> {
        let mut kept = vec![false; of];
        let mut left = count;
        while left > 0 {
            let i = below(rng, of);
            left -= usize::from(!kept[i]);
            kept[i] = true;
        }
        kept
    }

    #[test]
    fn any_k_symbols_recover_as_the_stock_engine_does() {
        let mut rng = Rng::new(3);
        let mut codec = Codec::new();
        for round in 0..3_000 {
            let k = 1 + below(&mut rng, if round % 50 == 0 { 200 } else { 30 });
            let r = 1 + below(
                &mut rng,
                (255 - k).min(if round % 50 == 0 { 255 } else { 12 }),
            );
            let bytes = 2 * (1 + below(&mut rng, 80));
            let sources = random_symbols(&mut rng, k, bytes);
            let repairs = encode(&mut codec, &sources, r, bytes);
            assert_eq!(repairs.len(), r);
            let kept = draw(&mut rng, k, k + r);
            let have = |range: std::ops::Range<usize>| range.filter(|i| kept[*i]);
            let mut recovered = vec![None; k];
            codec
                .recover(
                    k,
                    r,
                    bytes,
                    have(0..k).map(|i| (i, sources[i].as_slice())),
                    have(k..k + r).map(|i| (i - k, repairs[i - k].as_slice())),
                    |i, symbol| recovered[i] = Some(symbol.to_vec()),
                )
                .unwrap();
            for i in 0..k {
                let expected = (!kept[i]).then(|| sources[i].clone());
                assert_eq!(recovered[i], expected, "{k}+{r} of {bytes}, source {i}");
            }
            // The oracle costs two transforms, so it judges every tenth group.
            if k == 1 || round % 10 != 0 {
                continue;
            }
            let mut stock = StockEncoder::new(k, r, bytes, DefaultEngine::new(), None).unwrap();
            sources
                .iter()
                .for_each(|s| stock.add_original_shard(s).unwrap());
            assert!(
                stock
                    .encode()
                    .unwrap()
                    .recovery_iter()
                    .eq(repairs.iter().map(Vec::as_slice))
            );
            let mut stock = StockDecoder::new(k, r, bytes, DefaultEngine::new(), None).unwrap();
            have(0..k).for_each(|i| stock.add_original_shard(i, &sources[i]).unwrap());
            have(k..k + r).for_each(|i| stock.add_recovery_shard(i - k, &repairs[i - k]).unwrap());
            for (i, symbol) in stock.decode().unwrap().restored_original_iter() {
                assert_eq!(recovered[i].as_deref(), Some(symbol));
            }
        }
    }

    #[test]
    fn the_locator_equals_the_transform() {
        let mut rng = Rng::new(5);
        for _ in 0..40 {
            let len = 2 + below(&mut rng, LOCATOR_LEN_MAX - 1);
            let share = rng.unit();
            let mut direct = Box::new([0; GF_ORDER]);
            direct[..len].fill_with(|| u16::from(rng.chance(share)));
            let mut stock = direct.clone();
            DirectLocator::eval_poly(&mut direct, len);
            utils::eval_poly(&mut stock, len);
            for i in 0..len {
                assert_eq!(
                    direct[i] % GF_MODULUS,
                    stock[i] % GF_MODULUS,
                    "position {i} of {len}"
                );
            }
        }
    }

    #[test]
    fn short_symbols_are_padded_with_zeros() {
        let mut codec = Codec::new();
        let sources = [vec![1; 40], vec![2; 7], vec![3; 1]];
        let repairs = encode(&mut codec, &sources, 2, 40);
        let mut recovered = Vec::new();
        let source = std::iter::once((0, sources[0].as_slice()));
        let repair = repairs.iter().map(Vec::as_slice).enumerate();
        codec
            .recover(3, 2, 40, source, repair, |i, symbol| {
                recovered.push((i, symbol.to_vec()));
            })
            .unwrap();
        for (i, symbol) in recovered {
            let (body, padding) = symbol.split_at(sources[i].len());
            assert!(body == sources[i] && padding.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn impossible_shapes_and_foreign_symbols_are_refused() {
        let mut codec = Codec::new();
        let symbol = [0_u8; 8];
        let none = || std::iter::empty::<(usize, &[u8])>();
        for (k, r, bytes) in [
            (0, 1, 8),
            (1, 0, 8),
            (254, 2, 8),
            (2, 2, 0),
            (2, 2, 7),
            (usize::MAX, 9, 8),
        ] {
            let outcome = codec.recover(k, r, bytes, none(), none(), |_, _| {});
            assert_eq!(outcome, Err(CodecError::Shape), "{k}+{r}");
        }
        assert_eq!(
            codec.recover(2, 2, 8, none(), none(), |_, _| {}),
            Err(CodecError::TooFew)
        );
        assert_eq!(
            codec.recover(1, 2, 8, none(), none(), |_, _| {}),
            Err(CodecError::TooFew)
        );
        for (index, bytes) in [(2, 8), (0, 9)] {
            let long = [0_u8; 9];
            let one = std::iter::once((index, &long[..bytes]));
            let outcome = codec.recover(2, 2, 8, one, none(), |_, _| {});
            assert_eq!(outcome, Err(CodecError::Symbol));
        }
        let twice = [(0, &symbol[..]), (0, &symbol[..])];
        let outcome = codec.recover(3, 2, 8, none(), twice.into_iter(), |_, _| {});
        assert_eq!(outcome, Err(CodecError::Symbol));
        // A refused group leaves no trace in the next one.
        let sources = random_symbols(&mut Rng::new(1), 3, 8);
        let repairs = encode(&mut codec, &sources, 1, 8);
        let mut recovered = None;
        let kept = (1..3).map(|i| (i, sources[i].as_slice()));
        let repair = std::iter::once((0, repairs[0].as_slice()));
        codec
            .recover(3, 1, 8, kept, repair, |i, s| {
                recovered = Some((i, s.to_vec()))
            })
            .unwrap();
        assert_eq!(recovered, Some((0, sources[0].clone())));
    }
}
