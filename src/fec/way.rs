//! Which of two ways is less work for a group: sums (`direct`), or the library's transforms.
//!
//! A step of a transform (two symbols, one multiplication) takes about as long as a term of a sum: 65 to 80 ns for symbols
//! of 1408 bytes, measured from 4+1 to 96+9. So steps and terms are counted.

use super::GROUP_SYMBOLS_MAX;
use super::direct::SUMS_MAX;

/// How a group's symbols are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The source's copy.
    Copy,
    /// As sums.
    Direct,
    /// By the library's transforms.
    Transform,
}

/// How `rows` of a group's `code_rows` are computed.
pub(super) fn way_to_encode(source_count: usize, code_rows: usize, rows: usize) -> Way {
    if source_count == 1 {
        return Way::Copy;
    }
    // Each block of sources is transformed, and their sum.
    let block = code_rows.next_power_of_two();
    let blocks = source_count.div_ceil(block) + 1;
    let steps = blocks * block * block.trailing_zeros() as usize / 2;
    if rows <= SUMS_MAX && rows * source_count <= steps {
        Way::Direct
    } else {
        Way::Transform
    }
}

/// How `lost` sources of a group are computed.
pub(super) fn way_to_recover(source_count: usize, code_rows: usize, lost: usize) -> Way {
    // All positions are transformed there and back.
    let size = (code_rows.next_power_of_two() + source_count).next_power_of_two();
    let steps = size * size.trailing_zeros() as usize;
    if lost <= SUMS_MAX && lost * source_count <= steps {
        Way::Direct
    } else {
        Way::Transform
    }
}

/// The sources that are not there, in order; `None` when they are more than there is room for, or one is twice or not
/// of the group.
pub(super) fn lost_of<'a, 'r>(
    source_count: usize,
    sources: impl Iterator<Item = (usize, &'a [u8])>,
    room: &'r mut [usize; SUMS_MAX],
) -> Option<&'r [usize]> {
    let mut here = [false; GROUP_SYMBOLS_MAX];
    for (index, _) in sources {
        if index >= source_count || std::mem::replace(&mut here[index], true) {
            return None;
        }
    }
    let mut count = 0;
    for (index, _) in here[..source_count]
        .iter()
        .enumerate()
        .filter(|(_, here)| !**here)
    {
        *room.get_mut(count)? = index;
        count += 1;
    }
    Some(&room[..count])
}

/// Whether symbols have indexes below `count`, none of them twice, and are not too long.
pub(super) fn are_sound<'a>(
    mut symbols: impl Iterator<Item = (usize, &'a [u8])>,
    count: usize,
    symbol_bytes: usize,
) -> bool {
    let mut seen = [false; GROUP_SYMBOLS_MAX];
    symbols.all(|(index, symbol)| {
        index < count && symbol.len() <= symbol_bytes && !std::mem::replace(&mut seen[index], true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_summed_and_much_is_transformed() {
        assert_eq!(way_to_encode(1, 4, 3), Way::Copy);
        assert_eq!(way_to_encode(10, 16, 3), Way::Direct);
        assert_eq!(way_to_encode(96, 16, 9), Way::Transform);
        assert_eq!(way_to_recover(96, 16, 2), Way::Direct);
        assert_eq!(way_to_recover(200, 32, 16), Way::Transform);
        assert_eq!(way_to_recover(20, 64, SUMS_MAX + 1), Way::Transform);
    }

    #[test]
    fn what_is_lost_is_what_is_not_there() {
        let (mut room, none) = ([0; SUMS_MAX], &[][..]);
        let lost = |here: &[usize], room: &mut [usize; SUMS_MAX]| {
            let here = here.iter().map(|&at| (at, none));
            lost_of(20, here, room).map(<[usize]>::to_vec)
        };
        let all: Vec<usize> = (0..20).collect();
        assert_eq!(lost(&all, &mut room), Some(vec![]));
        assert_eq!(lost(&all[2..], &mut room), Some(vec![0, 1]));
        assert_eq!(lost(&all[..3], &mut room), None, "too many");
        assert_eq!(lost(&[3, 3], &mut room), None, "twice");
        assert_eq!(lost(&[20], &mut room), None, "of another group");
        let symbol = |at| [(at, none)].into_iter();
        assert!(are_sound(symbol(3), 4, 0) && !are_sound(symbol(4), 4, 0));
    }
}
