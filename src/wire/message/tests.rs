//! Golden bytes, and what is no message.

use super::*;

fn header() -> SymbolHeader {
    SymbolHeader {
        group: GroupId(0x0403_0201),
        index: 5,
        source_count: 0,
        repair_count: 3,
    }
}

fn emit(message: &Message<'_>) -> Vec<u8> {
    let mut out = [0_u8; 200];
    let mut writer = Writer::new(&mut out, 0x0d0c_0b0a);
    assert!(writer.push(message));
    let used = writer.len();
    out[..used].to_vec()
}

fn golden() -> Vec<(Message<'static>, Vec<u8>)> {
    let repair = SymbolHeader {
        index: 2,
        source_count: 10,
        ..header()
    };
    let open = LinkOpen {
        link: LinkId(1),
        wan: WanId(2),
        role: WanRole::Backup,
        direction: Direction::Down,
        rate_to_peer_kbit: 1000,
        rate_to_sender_kbit: 0x0101_0101,
        rtt_max_ms: 500,
        loss_max_bp: 2000,
        name: "dsl",
    };
    vec![
        (
            Message::Symbol(header(), b"xy"),
            vec![1, 5, 1, 2, 3, 4, 0, 3, 2, 0, b'x', b'y'],
        ),
        (
            Message::Repair(repair, b"abcd"),
            vec![2, 2, 1, 2, 3, 4, 10, 3, b'a', b'b', b'c', b'd'],
        ),
        (Message::Heartbeat, vec![4]),
        (
            Message::LinkOpen(open),
            vec![
                5, 1, 2, 1, 2, 0xe8, 3, 0, 0, 1, 1, 1, 1, 0xf4, 1, 0xd0, 7, 3, b'd', b's', b'l',
            ],
        ),
        (Message::LinkAck(LinkId(7)), vec![6, 7]),
        (
            Message::PathChallenge(*b"12345678"),
            b"\x0712345678".to_vec(),
        ),
        (
            Message::PathResponse(*b"12345678"),
            b"\x0812345678".to_vec(),
        ),
        (Message::Close(2), vec![9, 2]),
        (Message::Padding(3), vec![10, 0, 0, 0]),
    ]
}

#[test]
fn golden_bytes_both_ways() {
    for (message, bytes) in golden() {
        let plaintext = emit(&message);
        assert_eq!(plaintext[..4], [0x0a, 0x0b, 0x0c, 0x0d]);
        assert_eq!(plaintext[4..], bytes, "{message:?}");
        let (time, mut messages) = parse(&plaintext).unwrap();
        assert_eq!(time, 0x0d0c_0b0a);
        assert_eq!(messages.next(), Some(Ok(message)));
        assert_eq!(messages.next(), None);
    }
}

#[test]
fn a_plaintext_of_one_symbol_can_be_put_together_around_it() {
    for (message, repair, symbol) in [
        (Message::Symbol(header(), b"xy"), false, &b"\x02\0xy"[..]),
        (Message::Repair(header(), b"abcd"), true, b"abcd"),
    ] {
        let mut plaintext = vec![0xff; SYMBOL_START];
        plaintext.extend_from_slice(symbol);
        header().emit_start(repair, &mut plaintext);
        emit_send_time(&mut plaintext, 0x0d0c_0b0a);
        assert_eq!(plaintext, emit(&message));
    }
}

#[test]
fn truncation_is_an_error_and_ends_the_walk() {
    for (message, _) in golden() {
        let plaintext = emit(&message);
        for cut in 5..plaintext.len() {
            let (_, mut messages) = parse(&plaintext[..cut]).unwrap();
            match messages.next() {
                Some(Ok(Message::Padding(_) | Message::Repair(..))) => {} // any length is valid
                other => {
                    assert_eq!(other, Some(Err(DropReason::BadFrame)), "{message:?} {cut}")
                }
            }
            assert_eq!(messages.next(), None);
        }
    }
    assert_eq!(parse(&[1, 2, 3]).err(), Some(DropReason::BadFrame));
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut out = [0_u8; 12];
    let mut writer = Writer::new(&mut out, 0);
    assert!(!writer.push(&Message::PathChallenge([0; 8])));
    assert_eq!(writer.len(), SEND_TIME_BYTES);
    assert!(writer.push(&Message::LinkAck(LinkId(0))));
    assert_eq!(writer.len(), SEND_TIME_BYTES + 2);
}

#[test]
fn several_messages_share_a_datagram() {
    let mut out = [0_u8; 64];
    let mut writer = Writer::new(&mut out, 1);
    assert!(writer.push(&Message::Heartbeat));
    assert!(writer.push(&Message::Symbol(header(), b"tail")));
    let used = writer.len();
    let (_, messages) = parse(&out[..used]).unwrap();
    let all: Vec<_> = messages.map(Result::unwrap).collect();
    assert_eq!(
        all,
        [Message::Heartbeat, Message::Symbol(header(), b"tail")]
    );
}
