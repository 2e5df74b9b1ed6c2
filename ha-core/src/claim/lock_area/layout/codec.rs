//! Bytes of one block: little-endian fields behind a common prefix, the checksum (CRC-32C, RFC 3720) at the end.

use super::{AreaId, BLOCK_USED, BlockError, MAGIC, VERSION};

pub(super) struct Writer {
    bytes: Vec<u8>,
    at: usize,
    used: usize,
}

impl Writer {
    pub(super) fn new(len: usize, used: usize, kind: u8, area: AreaId, seq: u64, node: u32, number: u32) -> Writer {
        let mut w = Writer { bytes: vec![0; len], at: 0, used };
        w.bytes(&MAGIC);
        w.bytes(&[kind, VERSION, 0, 0]);
        w.bytes(&area.0);
        w.u64(seq);
        w.u32(node);
        w.u32(number);
        w
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// 64 bytes: the length, then at most 63 bytes of text, which is what every checked name keeps to.
    pub(super) fn name(&mut self, name: &str) {
        let mut field = [0; 64];
        field[0] = name.len() as u8;
        field[1..=name.len()].copy_from_slice(name.as_bytes());
        self.bytes(&field);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let end = self.used - 4;
        let crc = crc32c::crc32c(&self.bytes[..end]);
        self.bytes[end..self.used].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
    pub(super) area: AreaId,
    pub(super) seq: u64,
    node: u32,
    number: u32,
}

impl<'a> Reader<'a> {
    /// Checks prefix and checksum. What follows reads within `used` bytes: the formats are of fixed length.
    pub(super) fn open(bytes: &'a [u8], used: usize, kind: u8) -> Result<Reader<'a>, BlockError> {
        let bytes = bytes.get(..used).ok_or(BlockError::Short(bytes.len()))?;
        if bytes.iter().all(|b| *b == 0) {
            return Err(BlockError::Blank);
        }
        let mut r = Reader { rest: bytes, area: AreaId([0; 16]), seq: 0, node: 0, number: 0 };
        let magic: [u8; 4] = r.array();
        if magic != MAGIC {
            return Err(BlockError::Magic(magic));
        }
        let (body, stored) = bytes.split_at(used - 4);
        let stored = u32::from_le_bytes([stored[0], stored[1], stored[2], stored[3]]);
        let computed = crc32c::crc32c(body);
        if stored != computed {
            return Err(BlockError::Checksum { stored, computed });
        }
        let [found, version, _, _] = r.array();
        if version != VERSION {
            return Err(BlockError::Version(version));
        }
        if found != kind {
            return Err(BlockError::Kind { found, expected: kind });
        }
        r.area = AreaId(r.array());
        r.seq = r.u64();
        r.node = r.u32();
        r.number = r.u32();
        Ok(r)
    }

    /// Checks also that the block is of this area and belongs here.
    pub(super) fn open_at(
        bytes: &'a [u8],
        kind: u8,
        area: AreaId,
        node: u32,
        number: u32,
    ) -> Result<Reader<'a>, BlockError> {
        let r = Self::open(bytes, BLOCK_USED, kind)?;
        if r.area != area {
            return Err(BlockError::Area(r.area));
        }
        if (r.node, r.number) != (node, number) {
            return Err(BlockError::Place { node: r.node, number: r.number });
        }
        Ok(r)
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let n = N.min(self.rest.len());
        let (head, tail) = self.rest.split_at(n);
        out[..n].copy_from_slice(head);
        self.rest = tail;
        out
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(super) fn name(&mut self) -> Option<&'a str> {
        let field = self.rest.get(..64)?;
        self.rest = &self.rest[64..];
        let len = usize::from(field[0]);
        std::str::from_utf8(field.get(1..=len)?).ok()
    }
}
