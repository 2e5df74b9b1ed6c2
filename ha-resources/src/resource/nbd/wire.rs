//! The protocol between an NBD server and a client until data flows (its document is `doc/proto.md` of the nbd project).
//!
//! Decides what is asked (`NBD_OPT_INFO` to look, `NBD_OPT_GO` to begin), what of the answers counts, and that a server which speaks
//! an older protocol, wants TLS or refuses is told apart. What flows afterwards is between the server and the kernel.

use std::io::{self, Read, Write};

const GREETING: &[u8; 8] = b"NBDMAGIC";
const OPTION: &[u8; 8] = b"IHAVEOPT";
const REPLY: u64 = 0x0003_e889_0455_65a9;

const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;

const ABORT: u32 = 2;
const INFO: u32 = 6;
const GO: u32 = 7;

const ACKNOWLEDGED: u32 = 1;
const INFORMATION: u32 = 3;

const ABOUT_EXPORT: u16 = 0;
const ABOUT_BLOCK_SIZE: u16 = 3;

/// Of a server's answers to one question so many are read.
const MOST_ANSWERS: usize = 64;

/// An answer that is longer is none.
const LONGEST_ANSWER: u32 = 64 * 1024;

/// The smallest blocks that the kernel has.
const SECTOR: u32 = 512;

/// Nothing can be written (`NBD_FLAG_READ_ONLY`).
pub(super) const READ_ONLY: u16 = 1 << 1;

/// Data can be made to last (`NBD_FLAG_SEND_FLUSH`).
pub(super) const FLUSH: u16 = 1 << 2;

/// What a server gives under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Export {
    /// In bytes.
    pub(super) size: u64,
    /// What can be done with it (transmission flags).
    pub(super) flags: u16,
    /// Of the smallest request that it takes, in bytes: 512 at least.
    pub(super) block_size: u32,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// To know about the export, and nothing else.
    Look,
    /// To use it from now on.
    Begin,
}

/// Why there is no export. Each is the end of a sentence that names the server.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Nobody there, or no more.
    #[error("{}", describe(.0))]
    Lost(#[from] io::Error),
    /// It greets otherwise.
    #[error("is no NBD server: it begins with {0:?}")]
    Stranger(String),
    /// It lacks what was added in 2011 and 2016.
    #[error("is too old: {0}")]
    Old(&'static str),
    /// It does not know the name.
    #[error("has no such export{0}")]
    Unknown(String),
    /// It knows, and does not give.
    #[error("does not allow it to this node{0}; look at its configuration")]
    Forbidden(String),
    /// It would have us encrypt.
    #[error("wants TLS, which is not supported here: keep it on a network of its own, or reach it through a tunnel")]
    Encrypted,
    /// It goes down.
    #[error("is shutting down{0}")]
    Leaving(String),
    /// Some other error of the protocol.
    #[error("refused with error {0}{1}")]
    Other(u32, String),
    /// It does not keep to the protocol.
    #[error("breaks the protocol: {0}")]
    Broken(&'static str),
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "does not answer in time".to_owned(),
        io::ErrorKind::UnexpectedEof => {
            "closed the connection; perhaps it admits no more clients, or its configuration is wrong: look at its log"
                .to_owned()
        }
        _ => format!("cannot be reached: {error}"),
    }
}

/// Asks for an export by its name. With [`Wish::Begin`] the server waits for requests afterwards; with [`Wish::Look`] the connection is of no more use.
pub(super) fn negotiate(stream: &mut (impl Read + Write), name: &str, wish: Wish) -> Result<Export, Refusal> {
    greet(stream)?;
    let option = match wish {
        Wish::Look => INFO,
        Wish::Begin => GO,
    };
    let length = u32::try_from(name.len()).map_err(|_| Refusal::Broken("the name is too long"))?;
    // The name, then a list of one thing that we want to know beside.
    let data = [&length.to_be_bytes(), name.as_bytes(), &1_u16.to_be_bytes(), &ABOUT_BLOCK_SIZE.to_be_bytes()].concat();
    ask(stream, option, &data)?;
    let export = answers(stream, option)?;
    if wish == Wish::Look {
        // That it may close it: whether this arrives does not matter.
        let _ = ask(stream, ABORT, &[]);
    }
    Ok(export)
}

fn greet(stream: &mut (impl Read + Write)) -> Result<(), Refusal> {
    let mut greeting = [0; 8];
    stream.read_exact(&mut greeting)?;
    if &greeting != GREETING {
        return Err(Refusal::Stranger(String::from_utf8_lossy(&greeting).into_owned()));
    }
    let mut style = [0; 8];
    stream.read_exact(&mut style)?;
    let flags = if &style == OPTION { u16::from_be_bytes(take(stream)?) } else { 0 };
    if flags & FIXED_NEWSTYLE == 0 {
        return Err(Refusal::Old("it does not speak the fixed newstyle protocol"));
    }
    let ours = u32::from(flags & (FIXED_NEWSTYLE | NO_ZEROES));
    stream.write_all(&ours.to_be_bytes())?;
    Ok(())
}

fn ask(stream: &mut impl Write, option: u32, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    stream.write_all(&[OPTION, option.to_be_bytes().as_slice(), &length.to_be_bytes(), data].concat())?;
    stream.flush()
}

fn answers(stream: &mut impl Read, option: u32) -> Result<Export, Refusal> {
    let mut export = None;
    let mut block_size = SECTOR;
    for _ in 0..MOST_ANSWERS {
        let (kind, data) = answer(stream, option)?;
        match kind {
            ACKNOWLEDGED => {
                let (size, flags) = export.ok_or(Refusal::Broken("it said nothing of the export"))?;
                return Ok(Export { size, flags, block_size });
            }
            INFORMATION => {
                let (about, rest) = data.split_first_chunk().ok_or(Refusal::Broken("an empty information"))?;
                match u16::from_be_bytes(*about) {
                    ABOUT_EXPORT => export = Some(about_export(rest)?),
                    ABOUT_BLOCK_SIZE => block_size = least_block(rest)?,
                    _ => {}
                }
            }
            error if error >> 31 == 1 => return Err(refusal(error & !(1 << 31), &data)),
            _ => return Err(Refusal::Broken("an answer of unknown kind")),
        }
    }
    Err(Refusal::Broken("its answer does not end"))
}

fn answer(stream: &mut impl Read, option: u32) -> Result<(u32, Vec<u8>), Refusal> {
    if u64::from_be_bytes(take(stream)?) != REPLY {
        return Err(Refusal::Broken("what should be an answer is none"));
    }
    if u32::from_be_bytes(take(stream)?) != option {
        return Err(Refusal::Broken("it answers what was not asked"));
    }
    let kind = u32::from_be_bytes(take(stream)?);
    let length = u32::from_be_bytes(take(stream)?);
    if length > LONGEST_ANSWER {
        return Err(Refusal::Broken("an answer is too long"));
    }
    let mut data = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut data)?;
    Ok((kind, data))
}

fn take<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn about_export(data: &[u8]) -> Result<(u64, u16), Refusal> {
    let wrong = || Refusal::Broken("what it says of the export is too short");
    let (size, rest) = data.split_first_chunk().ok_or_else(wrong)?;
    let (flags, _) = rest.split_first_chunk().ok_or_else(wrong)?;
    Ok((u64::from_be_bytes(*size), u16::from_be_bytes(*flags)))
}

/// The kernel has blocks of 512 bytes to a page. One that takes smaller ones takes these too.
fn least_block(data: &[u8]) -> Result<u32, Refusal> {
    let least = data.first_chunk().ok_or(Refusal::Broken("what it says of its blocks is too short"))?;
    match u32::from_be_bytes(*least) {
        least if !least.is_power_of_two() => Err(Refusal::Broken("the size of its blocks is no power of two")),
        least if least > 4096 => {
            Err(Refusal::Broken("its smallest block has more than 4096 bytes, which Linux cannot use"))
        }
        least => Ok(least.max(SECTOR)),
    }
}

fn refusal(error: u32, data: &[u8]) -> Refusal {
    let said: String = String::from_utf8_lossy(data).chars().filter(|c| !c.is_control()).take(200).collect();
    let said = if said.is_empty() { said } else { format!(": it says {said:?}") };
    match error {
        1 => Refusal::Old("it knows neither NBD_OPT_INFO nor NBD_OPT_GO"),
        2 => Refusal::Forbidden(said),
        5 => Refusal::Encrypted,
        6 => Refusal::Unknown(said),
        7 => Refusal::Leaving(said),
        other => Refusal::Other(other, said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A server of whom all that it says is known before.
    struct Scripted {
        says: io::Cursor<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl Read for Scripted {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.says.read(buffer)
        }
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.heard.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn greeting() -> Vec<u8> {
        [GREETING.as_slice(), OPTION, &(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes()].concat()
    }

    fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        [REPLY.to_be_bytes().as_slice(), &option.to_be_bytes(), &kind.to_be_bytes(), &length.to_be_bytes(), data]
            .concat()
    }

    fn export(option: u32, size: u64, flags: u16) -> Vec<u8> {
        reply(option, INFORMATION, &[[0, 0].as_slice(), &size.to_be_bytes(), &flags.to_be_bytes()].concat())
    }

    fn told(wish: Wish, says: &[Vec<u8>]) -> (Result<Export, String>, Vec<u8>) {
        let mut server = Scripted { says: io::Cursor::new(says.concat()), heard: Vec::new() };
        let result = negotiate(&mut server, "shop", wish).map_err(|refusal| refusal.to_string());
        (result, server.heard)
    }

    #[test]
    fn an_export_is_looked_at_and_taken() {
        let blocks = [[0, 3].as_slice(), &4096_u32.to_be_bytes(), &4096_u32.to_be_bytes(), &[0; 4]].concat();
        let says = |option| {
            vec![
                greeting(),
                export(option, 1 << 25, FLUSH | 1),
                reply(option, INFORMATION, &[0, 9, 1, 2, 3]),
                reply(option, INFORMATION, &blocks),
                reply(option, ACKNOWLEDGED, &[]),
            ]
        };
        let expected = Export { size: 1 << 25, flags: FLUSH | 1, block_size: 4096 };
        let (begun, heard) = told(Wish::Begin, &says(GO));
        assert_eq!(begun, Ok(expected));
        let begins =
            [[0, 0, 0, 3].as_slice(), OPTION, &[0, 0, 0, 7, 0, 0, 0, 12], &[0, 0, 0, 4], b"shop", &[0, 1, 0, 3]];
        assert_eq!(heard, begins.concat());
        let (looked, heard) = told(Wish::Look, &says(INFO));
        assert_eq!(looked, Ok(expected));
        assert!(heard.ends_with(&[OPTION.as_slice(), &[0, 0, 0, 2, 0, 0, 0, 0]].concat()), "{heard:?}");
    }

    #[test]
    fn every_refusal_says_what_it_is() {
        let error = |number: u32, said: &[u8]| vec![greeting(), reply(INFO, 1 << 31 | number, said)];
        let oldstyle = [GREETING.as_slice(), &[0, 0, 0x42, 2, 0x81, 0x86, 0x12, 0x53]].concat();
        for (says, expected) in [
            (vec![], "closed the connection"),
            (vec![b"SSH-2.0-OpenSSH".to_vec()], "is no NBD server: it begins with \"SSH-2.0-\""),
            (vec![oldstyle], "is too old"),
            (vec![[GREETING.as_slice(), OPTION, &[0, 0]].concat()], "is too old"),
            (error(1, b""), "is too old: it knows neither"),
            (error(2, b"no\x07 entry"), "does not allow it to this node: it says \"no entry\""),
            (error(5, b""), "wants TLS"),
            (error(6, b"Unknown export"), "has no such export: it says \"Unknown export\""),
            (error(7, b""), "is shutting down"),
            (error(8, b""), "refused with error 8"),
            (vec![greeting(), vec![0; 20]], "breaks the protocol: what should be an answer is none"),
            (vec![greeting(), reply(GO, ACKNOWLEDGED, &[])], "answers what was not asked"),
            (vec![greeting(), reply(INFO, ACKNOWLEDGED, &[])], "said nothing of the export"),
            (vec![greeting(), reply(INFO, INFORMATION, &[0, 0, 1])], "too short"),
            (vec![greeting(), reply(INFO, INFORMATION, &[0, 3, 0, 0, 0, 3])], "no power of two"),
            (vec![greeting(), reply(INFO, INFORMATION, &[0, 3, 0, 1, 0, 0])], "more than 4096 bytes"),
            (vec![greeting(), reply(INFO, INFORMATION, &[0, 9]).repeat(100)], "does not end"),
        ] {
            let (found, _) = told(Wish::Look, &says);
            let said = found.unwrap_err();
            assert!(said.contains(expected), "expected {expected}: {said}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = told(Wish::Begin, std::slice::from_ref(&bytes));
            let _ = told(Wish::Begin, &[greeting(), bytes.clone()]);
            let _ = told(Wish::Look, &[greeting(), reply(INFO, INFORMATION, &bytes)]);
        }
    }
}
