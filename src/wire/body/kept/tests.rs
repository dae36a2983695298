use proptest::prelude::*;

use super::*;

#[test]
fn small_pieces_are_copied_together_in_order() {
    let mut builder = KeptBodyBuilder::default();
    let large = Bytes::from(vec![b'x'; KeptBodyBuilder::LARGE]);
    for piece in [
        Bytes::from_static(b"a"),
        Bytes::from_static(b"b"),
        large.clone(),
        Bytes::from_static(b"c"),
    ] {
        builder.push(piece);
    }
    let kept = builder.finish(None);
    assert_eq!(kept.pieces.len(), 3);
    assert_eq!(&kept.pieces[0][..], b"ab");
    // A large piece is kept without a copy.
    assert_eq!(kept.pieces[1].as_ptr(), large.as_ptr());
    assert_eq!(&kept.pieces[2][..], b"c");
}

#[test]
fn small_pieces_hold_no_more_memory_than_is_accounted_for() {
    let mut builder = KeptBodyBuilder::default();
    let mut whole = Vec::new();
    for number in 0..3000_u32 {
        // A slice of a buffer, as a connection reads into it.
        let mut buffer = BytesMut::with_capacity(8 << 10);
        buffer.extend_from_slice(&number.to_le_bytes().repeat(1 + number as usize % 1000));
        let mut buffer = buffer.freeze();
        let piece = buffer.split_to(buffer.len() / 2);
        whole.extend_from_slice(&piece);
        builder.push(piece);
        assert!(buffer.is_unique(), "piece {number} keeps its buffer alive");
        let capacity = builder.joined.capacity();
        assert!(capacity <= whole.len().max(256), "{capacity} for {}", whole.len());
    }
    let kept = builder.finish(None);
    assert_eq!(kept.pieces.concat(), whole);
    assert!(kept.pieces.len() < 20 + whole.len() / (32 << 10));
}

#[test]
fn the_pieces_of_a_large_body_are_copied_into_blocks_that_are_mapped_separately() {
    let mut builder = KeptBodyBuilder::default();
    let piece = Bytes::from(vec![b'x'; 256 << 10]);
    while builder.length < 10 << 20 {
        builder.push(piece.clone());
    }
    let kept = builder.finish(None);
    let (heap, mapped): (Vec<_>, Vec<_>) = kept.pieces.iter().partition(|kept| kept.as_ptr() == piece.as_ptr());
    assert_eq!(heap.len() * piece.len(), KeptBodyBuilder::MAPPED_FROM);
    assert!(mapped.iter().all(|block| block.len() == KeptBodyBuilder::MAPPED_BLOCK));
    assert_eq!(mapped.len(), 6);
}

fn kept(pieces: &[Vec<u8>]) -> KeptBody {
    let pieces: Box<[Bytes]> = pieces.iter().cloned().map(Bytes::from).collect();
    KeptBody {
        length: pieces.iter().map(|piece| piece.len() as u64).sum(),
        pieces,
        permit: None,
    }
}

/// Reads the rest of the body, and checks the number of bytes that the reader says are left.
fn drain(reader: &mut KeptBodyReader) -> Vec<u8> {
    let mut taken = Vec::new();
    let whole = reader.remaining();
    while let Some(piece) = reader.next() {
        assert!(!piece.is_empty());
        taken.extend_from_slice(&piece);
        assert_eq!(reader.remaining(), whole - taken.len() as u64);
    }
    assert_eq!(reader.remaining(), 0);
    assert!(reader.next().is_none());
    taken
}

#[test]
fn a_splice_copies_nothing() {
    let body = kept(&[b"{\"model\":\"gp".to_vec(), b"t-5\",\"input\":1}".to_vec()]);
    let address = body.pieces[1].as_ptr();
    let mut reader = KeptBodyReader::new(body);
    reader
        .splice(9..16, Bytes::from_static(b"\"my\""))
        .expect("the range exists");
    assert_eq!(reader.next().as_deref(), Some(&b"{\"model\":"[..]));
    assert_eq!(reader.next().as_deref(), Some(&b"\"my\""[..]));
    let last = reader.next().expect("the rest");
    assert_eq!(last, &b",\"input\":1}"[..]);
    assert_eq!(last.as_ptr(), address.wrapping_add(4));
    assert!(reader.next().is_none());
}

#[test]
fn a_range_outside_the_body_cannot_be_replaced() {
    let mut reader = KeptBodyReader::new(kept(&[b"abc".to_vec(), b"de".to_vec()]));
    for (start, end) in [(0, 6), (6, 6), (6, 7), (3, 2), (0, u64::MAX), (u64::MAX, u64::MAX)] {
        let spliced = reader.splice(start..end, Bytes::from_static(b"x"));
        assert_eq!(spliced, Err(SpliceError), "{start}..{end}");
    }
    assert_eq!(drain(&mut reader), b"abcde");
    assert_eq!(KeptBodyReader::new(kept(&[])).splice(0..0, Bytes::new()), Ok(()));
}

proptest! {
    #[test]
    fn a_splice_has_the_result_of_vec_splice(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..6),
        splices in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..6)), 1..4),
        taken in 0_usize..8,
    ) {
        let whole = pieces.concat();
        let mut reader = KeptBodyReader::new(kept(&pieces));
        for (one, other, with) in splices {
            let (one, other) = (one.index(whole.len() + 1), other.index(whole.len() + 1));
            let at = one.min(other)..one.max(other);
            let mut expected = whole.clone();
            expected.splice(at.clone(), with.iter().copied());
            // The reader restarts, no matter how many pieces have been read before.
            for _ in 0..taken {
                let _ = reader.next();
            }
            prop_assert_eq!(reader.splice(at.start as u64..at.end as u64, with.into()), Ok(()));
            prop_assert_eq!(reader.length(), expected.len() as u64);
            prop_assert_eq!(drain(&mut reader.restarted()), &expected[..]);
            prop_assert_eq!(drain(&mut reader), &expected[..]);
        }
        reader.restore();
        prop_assert_eq!(drain(&mut reader), &whole[..]);
        reader.restore();
        prop_assert_eq!(drain(&mut reader.restarted()), whole);
    }
}
