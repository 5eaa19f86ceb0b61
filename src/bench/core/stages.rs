//! What single steps of the packet path cost, each by itself.

use std::hint::black_box;
use std::time::Duration;

use serde::Serialize;

use super::cost::{Cost, cost};
use super::{frames, pair};
use crate::base::{GroupId, Instant, Lane, LinkId, Rate};
use crate::crypto::Cipher;
use crate::crypto::key_schedule::Role;
use crate::fec::codec::Codec;
use crate::flow::{FlowQueue, QueueConfig};
use crate::reorder::{Buffer, WINDOW};
use crate::stripe::{Candidate, Scheduler, Strategy};
use crate::wire::header::DataHeader;
use crate::wire::message::{self, Message, SymbolHeader, Writer};
use crate::wire::piece::{emit_whole, pieces};
use crate::wire::virtio::VirtioHeader;

/// Bytes of a packet that fills a datagram.
const PACKET_BYTES: u16 = 1400;
/// The body and the symbol that carry it.
const BODY_BYTES: usize = 1405;
const SYMBOL_BYTES: usize = 1408;
/// A full datagram on the wire.
const WIRE_BYTES: u32 = 1500;

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// Which part of the core.
    pub part: &'static str,
    /// What it does.
    pub step: String,
    /// Of one packet, or what the step says.
    pub cost: Cost,
}

fn stage(part: &'static str, step: impl Into<String>, cost: Cost) -> Stage {
    Stage {
        part,
        step: step.into(),
        cost,
    }
}

/// All steps of a packet of 1400 bytes, `span` for each.
pub fn of_a_packet(span: Duration) -> Vec<Stage> {
    let mut stages = wire(span);
    stages.extend(seal_and_open(Cipher::Aes256Gcm, 1472, span));
    stages.push(flow_queue(span));
    stages.extend([3, 8].map(|links| stripe(links, span)));
    stages.push(reorder(span));
    stages
}

fn wire(span: Duration) -> Vec<Stage> {
    let frame = frames::udp(1, PACKET_BYTES);
    let Ok((virtio, packet)) = VirtioHeader::split(&frame) else {
        return Vec::new();
    };
    let mut body = vec![0; BODY_BYTES];
    let emit = cost(span, 1, || {
        emit_whole(black_box(&mut body), Lane(1), 7, &virtio, packet, false);
    });
    let mut plaintext = vec![0; BODY_BYTES + 32];
    let mut writer = Writer::new(&mut plaintext, 1);
    let header = SymbolHeader {
        group: GroupId(77),
        index: 3,
        source_count: 0,
        repair_count: 3,
    };
    let written = writer.push(&Message::Symbol(header, &body));
    debug_assert!(written, "the room is enough");
    let used = writer.len();
    let read = cost(span, 1, || {
        let parsed = message::parse(black_box(&plaintext[..used]));
        let messages = parsed.into_iter().flat_map(|(_, messages)| messages);
        for message in messages.flatten() {
            if let Message::Symbol(_, body) = message {
                black_box(pieces(body).filter(Result::is_ok).count());
            }
        }
    });
    vec![
        stage("wire", "packet into a body", emit),
        stage("wire", "message and pieces read", read),
    ]
}

/// Sealing and opening of a datagram of `bytes`.
pub fn seal_and_open(cipher: Cipher, bytes: usize, span: Duration) -> [Stage; 3] {
    let (near, far) = pair::handshake();
    let (mut seal, _) = near.secret.link_keys(Role::Initiator, LinkId(0), cipher);
    let (_, mut open) = far.secret.link_keys(Role::Responder, LinkId(0), cipher);
    let mut datagram = vec![7; bytes];
    let overhead = crate::wire::header::DATA_OVERHEAD_BYTES;
    let plaintext = vec![7; bytes.saturating_sub(overhead)];
    let in_place = cost(span, 1, || {
        let _ = black_box(seal.seal(1, black_box(&mut datagram)));
    });
    let from = cost(span, 1, || {
        let _ = black_box(seal.seal_from(1, black_box(&plaintext), black_box(&mut datagram)));
    });
    // Each can be opened once: what the sealing beside it costs is known and taken off.
    let both = cost(span, 1, || {
        let _ = seal.seal_from(1, &plaintext, &mut datagram);
        if let Ok(header) = DataHeader::parse(&datagram) {
            let _ = black_box(open.open(&header, &mut datagram));
        }
    });
    let name = |what: &str| format!("{} {what} {bytes}", cipher.name());
    let opened = Cost {
        median_ns: (both.median_ns - from.median_ns).max(0.0),
        best_ns: (both.best_ns - from.best_ns).max(0.0),
    };
    [
        stage("crypto", name("seal in place"), in_place),
        stage("crypto", name("seal"), from),
        stage("crypto", name("open"), opened),
    ]
}

fn flow_queue(span: Duration) -> Stage {
    let mut queue = FlowQueue::new(QueueConfig::default());
    let (mut now, mut number) = (Instant::ZERO, 0_u64);
    for _ in 0..64 {
        let _ = queue.enqueue(1, u32::from(PACKET_BYTES), 0, now);
    }
    let took = cost(span, 1, || {
        number += 1;
        now += Duration::from_nanos(500);
        let victim = queue.enqueue(number % 5, u32::from(PACKET_BYTES), 0, now);
        black_box((victim, queue.dequeue(now)));
    });
    stage("flow", "into the queue and out", took)
}

fn stripe(links: u8, span: Duration) -> Stage {
    let mut candidates: Vec<Candidate> = (0..links)
        .map(|link| Candidate {
            link: LinkId(link),
            free_at: Instant::ZERO,
            rate: Rate::from_mbps(500 + u64::from(link) * 200),
            delay: Duration::from_millis(link.into()),
            quality: 1.0 / (1.0 + f64::from(link)),
            weight: 1e8 * f64::from(link + 1),
            backlog_max: Duration::from_millis(5),
            share_of_group: link % 5,
        })
        .collect();
    let sum = candidates
        .iter()
        .fold(Rate::ZERO, |sum, c| sum.saturating_add(c.rate));
    let (step, mut now) = (sum.time_for(WIRE_BYTES.into()), Instant::ZERO);
    let mut scheduler = Scheduler::new(Strategy::EarliestDelivery);
    let took = cost(span, 1, || {
        now += step;
        if let Some(at) = scheduler.pick(WIRE_BYTES, now, 0.9, black_box(&candidates)) {
            candidates[at].commit(WIRE_BYTES, now);
        }
    });
    stage("stripe", format!("link of a symbol, {links} links"), took)
}

fn reorder(span: Duration) -> Stage {
    let mut buffer = Buffer::new(WINDOW);
    let (mut now, mut seq) = (Instant::ZERO, 0_u32);
    let took = cost(span, 1, || {
        now += Duration::from_micros(1);
        let refused = buffer.insert_since(Lane(1), seq, seq, true, now, now);
        seq = seq.wrapping_add(1);
        black_box((refused.is_err(), buffer.poll(now)));
    });
    stage("reorder", "in and out, in order", took)
}

/// What the code of a group costs; times are of whole groups.
#[derive(Clone, Debug, Serialize)]
pub struct Code {
    /// Sources of the group.
    pub sources: usize,
    /// Repair symbols computed.
    pub repairs: usize,
    /// Repair symbols that the code could have: those of a session have some to spare.
    pub rows: usize,
    /// Length of a symbol.
    pub symbol_bytes: usize,
    /// All repair symbols.
    pub encode: Cost,
    /// One lost source.
    pub recover_one: Cost,
    /// As many lost sources as there are repair symbols.
    pub recover_all: Cost,
}

/// The code of a group of this shape.
pub fn code(sources: usize, repairs: usize, rows: usize, span: Duration) -> Code {
    let symbol = |i: usize| (0..SYMBOL_BYTES).map(move |j| (i * 7 + j * 13).to_le_bytes()[0]);
    let symbols: Vec<Vec<u8>> = (0..sources).map(|i| symbol(i).collect()).collect();
    let all = || symbols.iter().map(Vec::as_slice);
    let mut codec = Codec::new();
    let mut made: Vec<Vec<u8>> = Vec::new();
    let loaded = codec.load(all(), rows, 0..repairs, SYMBOL_BYTES);
    let emitted = codec.emit_rows(|_, row| made.push(row.to_vec()));
    debug_assert!(
        loaded.is_ok() && emitted.is_ok(),
        "the shape is one of ours"
    );
    let encode = cost(span, 1, || {
        let _ = codec.load(black_box(all()), rows, 0..repairs, SYMBOL_BYTES);
        let _ = codec.emit_rows(|_, row| {
            black_box(row);
        });
    });
    let mut recover = |lost: usize| {
        cost(span, 1, || {
            let kept = black_box(all()).enumerate().skip(lost);
            let repair = made.iter().map(Vec::as_slice).enumerate().take(lost);
            let _ = codec.recover(sources, rows, SYMBOL_BYTES, kept, repair, |_, symbol| {
                black_box(symbol);
            });
        })
    };
    Code {
        sources,
        repairs,
        rows,
        symbol_bytes: SYMBOL_BYTES,
        encode,
        recover_one: recover(1),
        recover_all: recover(repairs.min(sources)),
    }
}
