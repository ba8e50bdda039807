//! Zigzag varints, as records use them.

use bytes::BufMut;

/// Reads a zigzag varint of at most 5 bytes; returns it and the rest.
pub fn read_varint(input: &[u8]) -> Option<(i32, &[u8])> {
    let mut value = 0u32;
    for (index, byte) in input.iter().take(5).enumerate() {
        let low = u32::from(byte & 0x7f);
        if index == 4 && low > 0x0f {
            return None;
        }
        value |= low << (7 * index);
        if byte & 0x80 == 0 {
            return Some((zigzag_i32(value), &input[index + 1..]));
        }
    }
    None
}

/// Reads a zigzag varint of at most 10 bytes; returns it and the rest.
pub fn read_varlong(input: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in input.iter().take(10).enumerate() {
        let low = u64::from(byte & 0x7f);
        if index == 9 && low > 1 {
            return None;
        }
        value |= low << (7 * index);
        if byte & 0x80 == 0 {
            return Some((zigzag_i64(value), &input[index + 1..]));
        }
    }
    None
}

/// Writes a zigzag varint.
pub fn write_varint(output: &mut impl BufMut, value: i32) {
    write_varlong(output, i64::from(value));
}

/// Writes a zigzag varint. A 32-bit value has the same bytes either way.
pub fn write_varlong(output: &mut impl BufMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        output.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    output.put_u8(rest as u8);
}

/// Bytes that [`write_varlong`] writes for `value`.
pub(super) fn varlong_len(value: i64) -> usize {
    let bits = 64 - ((value << 1) ^ (value >> 63)).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

fn zigzag_i32(value: u32) -> i32 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn zigzag_i64(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn longs_round_trip_in_the_predicted_number_of_bytes(value: i64, shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            write_varlong(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varlong_len(value));
            prop_assert_eq!(read_varlong(&bytes), Some((value, &[][..])));
        }

        #[test]
        fn ints_round_trip(value: i32) {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            bytes.push(9);
            prop_assert_eq!(read_varint(&bytes), Some((value, &[9][..])));
        }
    }

    #[test]
    fn overlong_and_cut_off_varints_are_refused() {
        assert_eq!(read_varint(&[0x80; 6]), None);
        assert_eq!(read_varint(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None);
        assert_eq!(read_varint(&[]), None);
        assert_eq!(read_varlong(&[0xff; 11]), None);
        assert_eq!(read_varlong(&[0x80]), None);
    }
}
