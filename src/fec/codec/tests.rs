//! The code against the stock engine, and what it refuses.

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
    // More on request (docs/measurements.md, section 5): 100 000 take a minute.
    let asked = std::env::var("CHAINLIGHTNING_FEC_GROUPS").ok();
    match asked.and_then(|number| number.parse().ok()) {
        Some(rounds) => compare_with_stock(4, rounds, 1),
        // The oracle costs two transforms, so it judges every tenth group.
        None => compare_with_stock(3, 3_000, 10),
    }
}

fn compare_with_stock(seed: u64, rounds: u64, judge_each: u64) {
    let mut rng = Rng::new(seed);
    let mut codec = Codec::new();
    for round in 0..rounds {
        let k = 1 + below(&mut rng, if round.is_multiple_of(50) { 200 } else { 30 });
        let r = 1 + below(
            &mut rng,
            (255 - k).min(if round.is_multiple_of(50) { 255 } else { 12 }),
        );
        let bytes = 2 * (1 + below(&mut rng, 80));
        let sources = random_symbols(&mut rng, k, bytes);
        let repairs = encode(&mut codec, &sources, r, bytes);
        assert_eq!(repairs.len(), r);
        let kept = draw(&mut rng, k, k + r);
        let have = |range: Range<usize>| range.filter(|i| kept[*i]);
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
        if k == 1 || !round.is_multiple_of(judge_each) {
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
fn rows_computed_later_belong_to_those_computed_first() {
    let (mut rng, mut codec) = (Rng::new(9), Codec::new());
    for _ in 0..300 {
        let (k, code_rows) = (1 + below(&mut rng, 100), 1 + below(&mut rng, 70));
        let sources = random_symbols(&mut rng, k, 16);
        let all = encode(&mut codec, &sources, code_rows, 16);
        let start = below(&mut rng, code_rows);
        let end = start + 1 + below(&mut rng, code_rows - start);
        let mut some = Vec::new();
        let iter = sources.iter().map(Vec::as_slice);
        codec.load(iter, code_rows, start..end, 16).unwrap();
        codec
            .emit_rows(|index, row| some.push((index, row.to_vec())))
            .unwrap();
        let expected: Vec<_> = (start..end).map(|i| (i, all[i].clone())).collect();
        assert_eq!(
            some, expected,
            "{k} sources, rows {start}..{end} of {code_rows}"
        );
    }
    let one = || std::iter::once(&[0_u8; 2][..]);
    assert_eq!(codec.load(one(), 2, 1..3, 2), Err(CodecError::Shape));
    assert_eq!(codec.emit_rows(|_, _| {}), Err(CodecError::TooFew));
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
