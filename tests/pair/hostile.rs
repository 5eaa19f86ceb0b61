//! What an authenticated peer may send when it means harm: random messages, most of them well-formed.

use chainlightning::base::{GroupId, Instant, Lane, LinkId, Rng, WanId};
use chainlightning::session::Session;
use chainlightning::session::epochs::{EpochKeys, LinkKeys};
use chainlightning::wire::header::{DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES, DataHeader, TAG_BYTES};
use chainlightning::wire::message::{
    Direction, LinkOpen, Message, SymbolHeader, WanRole, Writer, parse,
};
use chainlightning::wire::piece::{emit_fragment, emit_whole};
use chainlightning::wire::report::{BITMAP_BYTES_MAX, ReportMessage};
use chainlightning::wire::virtio::VirtioHeader;

/// A hostile peer of one session.
pub struct Hostile {
    rng: Rng,
    keys: Vec<LinkKeys>,
    /// What the victim sent last on each link: a packet number, and a challenge.
    heard: Vec<(u64, [u8; 8])>,
    group: u32,
    /// By lane, two of which do not exist.
    seqs: [u32; 66],
    /// Datagrams and messages sent.
    pub sent: u64,
}

impl Hostile {
    pub fn new(seed: u64, keys: EpochKeys) -> Self {
        Self {
            rng: Rng::new(seed),
            heard: vec![(0, [0; 8]); keys.links.len()],
            keys: keys.links,
            group: 0,
            seqs: [0; 66],
            sent: 0,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.rng.below(n)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    fn word(&mut self) -> u32 {
        u32::try_from(self.rng.next_u64() >> 32).unwrap()
    }

    /// Mostly small, at times huge.
    fn number(&mut self) -> u64 {
        let bits = self.below(64);
        self.rng.next_u64() >> bits
    }

    fn next_group(&mut self) -> GroupId {
        let step = match self.below(200) {
            0 => self.word() >> 2,
            1 => u32::try_from(self.below(5000)).unwrap(),
            2..20 => {
                let back = u32::try_from(self.below(100)).unwrap();
                return GroupId(self.group.wrapping_sub(back));
            }
            20..80 => 1,
            _ => 0,
        };
        self.group = self.group.wrapping_add(step);
        GroupId(self.group)
    }

    fn next_seq(&mut self, lane: Lane) -> u32 {
        let step = match self.below(1000) {
            0 => self.word() >> 10,
            1 => u32::try_from(self.below(10_000)).unwrap(),
            2..100 => {
                let back = u32::try_from(self.below(5_000)).unwrap();
                return self.seqs[lane.index()].wrapping_sub(back) & 0xff_ffff;
            }
            _ => 1,
        };
        let seq = &mut self.seqs[lane.index()];
        *seq = seq.wrapping_add(step) & 0xff_ffff;
        *seq
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let count = self.below(most + 1);
        (0..count).map(|_| self.byte()).collect()
    }

    /// A body of pieces: whole packets, fragments, nonsense.
    fn body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        for _ in 0..=self.below(12) {
            let lane = Lane(u8::try_from(self.below(66)).unwrap());
            let seq = self.next_seq(lane);
            let mut piece = vec![0; 1400];
            let used = match self.below(8) {
                0 => {
                    let noise = self.bytes(30);
                    piece[..noise.len()].copy_from_slice(&noise);
                    noise.len()
                }
                1..=4 => {
                    let mut packet = self.bytes(80);
                    packet.push(0x45);
                    let virtio = if self.rng.chance(0.5) {
                        VirtioHeader::NONE
                    } else {
                        let raw: [u8; 10] = std::array::from_fn(|_| self.byte());
                        VirtioHeader::parse(&raw)
                    };
                    emit_whole(&mut piece, lane, seq, &virtio, &packet, true)
                }
                _ => {
                    let mut part = self.bytes(200);
                    part.push(1);
                    let frame = usize::try_from(self.below(70_000)).unwrap();
                    let offset = usize::try_from(self.below(66_000)).unwrap();
                    emit_fragment(&mut piece, lane, seq, frame, offset, &part, true)
                }
            };
            if body.len() + used > 1300 {
                break;
            }
            body.extend_from_slice(&piece[..used]);
        }
        body
    }

    /// Reads what the victim sent: a liar tells the truth at times.
    pub fn hear(&mut self, link: LinkId, datagram: &mut [u8]) {
        let Ok(header) = DataHeader::parse(datagram) else {
            return;
        };
        let heard = &mut self.heard[link.index()];
        heard.0 = header.packet_number;
        let open = &mut self.keys[link.index()].open;
        let Ok(plaintext) = open.open(&header, datagram) else {
            return;
        };
        for message in parse(plaintext).unwrap().1 {
            if let Ok(Message::PathChallenge(token)) = message {
                heard.1 = token;
            }
        }
    }

    fn report(&mut self) -> ReportMessage {
        let mut bitmap = [0; BITMAP_BYTES_MAX];
        bitmap.fill_with(|| self.byte());
        let link = LinkId(u8::try_from(self.below(5)).unwrap());
        let known = self.heard.get(link.index()).map_or(0, |heard| heard.0);
        let largest = match self.below(4) {
            0 => self.number(),
            1 => known.saturating_sub(self.below(600)),
            _ => known,
        };
        if self.rng.chance(0.5) {
            bitmap.fill(0xff);
        }
        ReportMessage {
            link,
            epoch_tag: 1 + u8::from(self.below(8) == 0),
            largest: largest & 0xffff_ffff_ffff,
            largest_sent_us: self.word(),
            hold_us: self.word(),
            packets: self.number() & 0xffff_ffff_ffff,
            bytes: self.number() & 0xffff_ffff_ffff,
            received_us: self.word(),
            owd_min_us: self.word().cast_signed(),
            owd_last_us: self.word().cast_signed(),
            owd_max_us: self.word().cast_signed(),
            interval_ms: self.byte(),
            bitmap_bytes: u8::try_from(self.below(65)).unwrap(),
            bitmap,
        }
    }

    /// Writes a plaintext; returns its length.
    fn plaintext(&mut self, on: u8, out: &mut [u8]) -> usize {
        if self.below(20) == 0 {
            let noise = self.bytes(200);
            out[..noise.len()].copy_from_slice(&noise);
            return noise.len();
        }
        let sent_us = self.word();
        let mut writer = Writer::new(out, sent_us);
        let controls = if self.rng.chance(0.5) {
            0
        } else {
            self.below(12)
        };
        for _ in 0..controls {
            let link = LinkId(u8::try_from(self.below(5)).unwrap());
            let token = self.rng.next_u64().to_le_bytes();
            let open = LinkOpen {
                link,
                wan: WanId(u8::try_from(self.below(40)).unwrap()),
                role: [
                    WanRole::Active,
                    WanRole::Backup,
                    WanRole::Off,
                    WanRole::Spent,
                ][usize::try_from(self.below(4)).unwrap()],
                direction: [Direction::Both, Direction::Up, Direction::Down]
                    [usize::try_from(self.below(3)).unwrap()],
                rate_to_peer_kbit: self.word(),
                rate_to_sender_kbit: self.word(),
                rtt_max_ms: u16::try_from(self.below(65_536)).unwrap(),
                loss_max_bp: u16::try_from(self.below(65_536)).unwrap(),
                name: "a name of 24 bytes, yes.",
            };
            let message = match self.below(8) {
                0 => Message::Heartbeat,
                1 => Message::LinkOpen(open),
                2 => Message::LinkAck(link),
                3 => Message::PathChallenge(token),
                4 if self.rng.chance(0.5) => Message::PathResponse(token),
                4 => Message::PathResponse(self.heard[usize::from(on)].1),
                _ => Message::Report(self.report()),
            };
            writer.push(&message);
        }
        let header = SymbolHeader {
            group: self.next_group(),
            index: u8::try_from(self.below(40)).unwrap(),
            source_count: u8::try_from(self.below(30)).unwrap(),
            repair_count: u8::try_from(self.below(10)).unwrap(),
        };
        let room = 1400_usize.saturating_sub(writer.len());
        if self.below(3) == 0 {
            let mut symbol = self.bytes(1400);
            symbol.truncate(room & !1);
            writer.push(&Message::Repair(header, &symbol));
        } else {
            let mut body = self.body();
            body.truncate(room);
            writer.push(&Message::Symbol(header, &body));
        }
        writer.len()
    }

    /// Sends one datagram into the victim.
    pub fn send(&mut self, victim: &mut Session, now: Instant) {
        let link = u8::try_from(self.below(self.keys.len() as u64)).unwrap();
        let mut datagram = [0; 1600];
        let end = datagram.len() - TAG_BYTES;
        let bytes = self.plaintext(link, &mut datagram[DATA_HEADER_BYTES..end]);
        let whole = &mut datagram[..bytes + DATA_OVERHEAD_BYTES];
        self.keys[usize::from(link)]
            .seal
            .seal(super::index_of(link), whole)
            .unwrap();
        // From a few addresses, so that candidates come and go.
        let mut origin = super::origin(link);
        origin
            .address
            .set_port(4000 + u16::from(self.below(50) == 0));
        let _ = victim.handle_datagram(1, LinkId(link), whole, Some(origin), now);
        self.sent += 1;
    }
}

/// Lets the peer do its worst for some datagrams of virtual time; the victim has frames to send meanwhile.
pub fn assault(
    hostile: &mut Hostile,
    victim: &mut Session,
    start: Instant,
    datagrams: u64,
    buffers: (&mut [u8], &mut [u8]),
) -> Instant {
    let (out, frame_out) = buffers;
    let frame = super::frame(1, 1400);
    let mut now = start;
    for count in 0..datagrams {
        if count % 4 == 0 {
            now += std::time::Duration::from_micros(200);
            victim.handle_timeout(now);
        }
        hostile.send(victim, now);
        if count % 8 == 0 {
            let _ = victim.handle_frame(&frame, now);
        }
        while victim.poll_event().is_some() {}
        let mut polls = 0;
        while let Some(transmit) = victim.poll_transmit(now, out) {
            for datagram in out[..transmit.bytes].chunks_mut(usize::from(transmit.segment)) {
                hostile.hear(transmit.link, datagram);
            }
            polls += 1;
            assert!(polls < 10_000, "sends without end");
        }
        while victim.poll_frame(now, frame_out).is_some() {}
    }
    now
}
