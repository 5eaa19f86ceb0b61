//! The code of a group as plain sums: for the few rows and the few losses that most groups have.
//!
//! The library transforms whole groups, which pays when there is much to compute. What is usual is little: three repair
//! symbols for ten sources, one or two losses of a hundred. Then each wanted symbol is a sum of the others with known
//! factors, and that is faster. The symbols are the same to the bit.
//!
//! With m the number of rows rounded up to a power of two, row j stands at position j and source i at position m + i of
//! the field's elements; a block of m sources has one polynomial through it, and a row is the sum of their values at j:
//!
//! ```text
//! factor of source i in row j   c(j, i) = s(block) / (d (j + p)),   p = m + i
//!                               s(block) = product of (block + v) for v < m,  d = product of 0 < v < m
//! missing sources E, rows J     x(e) = sum over J of w(e, j) (row j + sum over the sources that are here of c(j, i) x(i))
//!                               w = the inverse of the Cauchy matrix c(J, E), which has a closed form
//! ```
//!
//! Addition of elements is exclusive or; factors are kept as logarithms. A sum needs one multiplication for each term,
//! because what is summed so far is multiplied by the quotient of two factors and the next symbol only added.
//!
//! References: Lin, Chung and Han, "Novel polynomial basis and its application to Reed-Solomon erasure codes", 2014 (the
//! library's code); Schechter, "On the inversion of certain matrices", 1959 (the inverse).

use std::ops::Range;

use reed_solomon_simd::engine::{DefaultEngine, Engine, GF_MODULUS, GfElement, tables, utils};

use super::GROUP_SYMBOLS_MAX;

/// Most rows that are computed, and most losses that are recovered, as sums.
pub(super) const SUMS_MAX: usize = 16;

/// Bytes of the library's unit of work.
const CHUNK: usize = 64;
/// Half of it: low bytes of the elements, then high bytes.
const HALF: usize = CHUNK / 2;

/// Where the sources and rows of a code stand, and the parts of their factors.
struct Factors {
    log: &'static tables::Log,
    /// Rows rounded up to a power of two.
    rows: usize,
    /// Its logarithm to base 2.
    shift: u32,
    /// log s(block) - log d by block.
    blocks: [u32; GROUP_SYMBOLS_MAX + 1],
}

impl Factors {
    fn new(source_count: usize, code_rows: usize) -> Self {
        let log = &tables::get_exp_log().log;
        let rows = code_rows.next_power_of_two();
        let sum = |of: Range<usize>| of.fold(0, |sum, at| add(sum, u32::from(log[at])));
        let own = sum(1..rows);
        let mut blocks = [0; GROUP_SYMBOLS_MAX + 1];
        for (number, block) in (1..=source_count.div_ceil(rows)).zip(&mut blocks) {
            *block = subtract(sum(number * rows..(number + 1) * rows), own);
        }
        Self {
            log,
            rows,
            shift: rows.trailing_zeros(),
            blocks,
        }
    }

    /// log of the difference of two positions.
    fn between(&self, a: usize, b: usize) -> u32 {
        u32::from(self.log[a ^ b])
    }

    const fn position(&self, source: usize) -> usize {
        self.rows + source
    }

    /// log c(row, source).
    fn of(&self, row: usize, source: usize) -> u32 {
        let block = self.blocks[source >> self.shift];
        subtract(block, self.between(row, self.position(source)))
    }

    /// log w(lost, row) for all of `lost` and as many `rows`.
    fn inverse(&self, lost: &[usize], rows: &[usize], out: &mut [[u32; SUMS_MAX]; SUMS_MAX]) {
        let part = |at: usize, others: &mut dyn Iterator<Item = usize>, same: &[usize]| {
            let over = others.fold(0, |sum, other| add(sum, self.between(at, other)));
            let under = same.iter().filter(|&&other| other != at);
            let under = under.fold(0, |sum, &other| add(sum, self.between(at, other)));
            subtract(over, under)
        };
        let mut positions = [0; SUMS_MAX];
        for (position, &source) in positions.iter_mut().zip(lost) {
            *position = self.position(source);
        }
        let positions = &positions[..lost.len()];
        let mut of_row = [0; SUMS_MAX];
        for (part_of, &row) in of_row.iter_mut().zip(rows) {
            *part_of = part(row, &mut positions.iter().copied(), rows);
        }
        for ((&at, &source), out) in positions.iter().zip(lost).zip(out) {
            let own = part(at, &mut rows.iter().copied(), positions);
            let own = subtract(own, self.blocks[source >> self.shift]);
            for ((&row, &of_row), out) in rows.iter().zip(&of_row).zip(out) {
                *out = subtract(add(own, of_row), self.between(at, row));
            }
        }
    }
}

/// Computes sums.
pub(super) struct Direct {
    engine: DefaultEngine,
    /// Sums in the library's layout, one after the other.
    sums: Vec<[u8; CHUNK]>,
    /// One sum more.
    extra: Vec<[u8; CHUNK]>,
}

impl Direct {
    pub(super) fn new() -> Self {
        Self {
            engine: DefaultEngine::new(),
            sums: Vec::new(),
            extra: Vec::new(),
        }
    }

    /// Makes room for symbols of a size.
    pub(super) fn reserve(&mut self, symbol_bytes: usize) {
        let chunks = symbol_bytes.div_ceil(CHUNK);
        if self.extra.len() < chunks {
            self.extra.resize(chunks, [0; CHUNK]);
            self.sums.resize(chunks * SUMS_MAX, [0; CHUNK]);
        }
    }

    /// Computes up to [`SUMS_MAX`] rows.
    pub(super) fn encode<'a>(
        &mut self,
        sources: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
        code_rows: usize,
        rows: Range<usize>,
        symbol_bytes: usize,
    ) {
        self.reserve(symbol_bytes);
        let factors = Factors::new(sources.len(), code_rows);
        let chunks = symbol_bytes.div_ceil(CHUNK);
        for (row, sum) in rows.zip(self.sums.chunks_exact_mut(chunks)) {
            let terms = sources.clone().enumerate();
            let terms = terms.map(|(source, bytes)| (factors.of(row, source), bytes));
            combine(&self.engine, terms, symbol_bytes, sum);
        }
    }

    /// Gives the rows of the last [`Direct::encode`] out, in their order.
    pub(super) fn rows(
        &mut self,
        rows: Range<usize>,
        symbol_bytes: usize,
        mut emit: impl FnMut(usize, &[u8]),
    ) {
        let chunks = symbol_bytes.div_ceil(CHUNK);
        for (row, sum) in rows.zip(self.sums.chunks_exact_mut(chunks)) {
            emit(row, unpack(sum, symbol_bytes));
        }
    }

    /// Computes the `lost` sources, up to [`SUMS_MAX`], from the others and as many repair symbols.
    pub(super) fn recover<'a>(
        &mut self,
        (source_count, code_rows, symbol_bytes): (usize, usize, usize),
        sources: impl Iterator<Item = (usize, &'a [u8])> + Clone,
        repairs: impl Iterator<Item = (usize, &'a [u8])>,
        lost: &[usize],
        mut emit: impl FnMut(usize, &[u8]),
    ) {
        self.reserve(symbol_bytes);
        let factors = Factors::new(source_count, code_rows);
        let chunks = symbol_bytes.div_ceil(CHUNK);
        let mut rows = [0; SUMS_MAX];
        let places = self.sums.chunks_exact_mut(chunks).zip(&mut rows);
        for ((row, repair), (sum, place)) in repairs.take(lost.len()).zip(places) {
            *place = row;
            let terms = sources.clone();
            let terms = terms.map(|(source, bytes)| (factors.of(row, source), bytes));
            let repair = std::iter::once((0, repair));
            combine(&self.engine, terms.chain(repair), symbol_bytes, sum);
        }
        let mut inverse = [[0; SUMS_MAX]; SUMS_MAX];
        factors.inverse(lost, &rows[..lost.len()], &mut inverse);
        for (&source, inverse) in lost.iter().zip(&inverse) {
            let sum = &mut self.extra[..chunks];
            sum.fill([0; CHUNK]);
            let mut last = inverse[0];
            let terms = inverse.iter().zip(self.sums.chunks_exact(chunks));
            for (&factor, term) in terms.take(lost.len()) {
                scale(&self.engine, sum, subtract(last, factor));
                utils::xor(sum, term);
                last = factor;
            }
            scale(&self.engine, sum, last);
            emit(source, unpack(sum, symbol_bytes));
        }
    }
}

/// Puts the sum of symbols, each times the factor of this logarithm, into `sum`.
fn combine<'a>(
    engine: &DefaultEngine,
    terms: impl Iterator<Item = (u32, &'a [u8])>,
    symbol_bytes: usize,
    sum: &mut [[u8; CHUNK]],
) {
    sum.fill([0; CHUNK]);
    let mut last = 0;
    for (at, (factor, symbol)) in terms.enumerate() {
        if at > 0 {
            scale(engine, sum, subtract(last, factor));
        }
        add_symbol(sum, symbol, symbol_bytes);
        last = factor;
    }
    scale(engine, sum, last);
}

/// Multiplies by the element of a logarithm.
fn scale(engine: &DefaultEngine, sum: &mut [[u8; CHUNK]], log: u32) {
    if log != 0 {
        #[expect(clippy::cast_possible_truncation, reason = "below 65535")]
        engine.mul(sum, log as GfElement);
    }
}

/// Adds a symbol, with zeros behind it, in the library's layout: whole chunks as they are, what is left as its first
/// half and its second half.
fn add_symbol(sum: &mut [[u8; CHUNK]], symbol: &[u8], symbol_bytes: usize) {
    let whole = symbol_bytes / CHUNK * CHUNK;
    let (body, tail) = symbol.split_at(whole.min(symbol.len()));
    let (chunks, rest) = body.as_chunks::<CHUNK>();
    for (sum, chunk) in sum.iter_mut().zip(chunks) {
        add_bytes(sum, chunk);
    }
    if let Some(sum) = sum.get_mut(chunks.len()) {
        add_bytes(sum, rest);
    }
    if let Some(sum) = sum.last_mut().filter(|_| !tail.is_empty()) {
        let (low, high) = tail.split_at(tail.len().min((symbol_bytes - whole) / 2));
        add_bytes(sum, low);
        add_bytes(&mut sum[HALF..], high);
    }
}

fn add_bytes(sum: &mut [u8], bytes: &[u8]) {
    for (sum, byte) in sum.iter_mut().zip(bytes) {
        *sum ^= byte;
    }
}

/// The symbol as bytes.
fn unpack(sum: &mut [[u8; CHUNK]], symbol_bytes: usize) -> &[u8] {
    let half = symbol_bytes % CHUNK / 2;
    if let Some(tail) = sum.last_mut().filter(|_| half > 0) {
        tail.copy_within(HALF..HALF + half, half);
    }
    &sum.as_flattened()[..symbol_bytes]
}

/// Logarithm of a product.
const fn add(a: u32, b: u32) -> u32 {
    (a + b) % GF_MODULUS as u32
}

/// Logarithm of a quotient.
const fn subtract(a: u32, b: u32) -> u32 {
    (a + GF_MODULUS as u32 - b % GF_MODULUS as u32) % GF_MODULUS as u32
}
