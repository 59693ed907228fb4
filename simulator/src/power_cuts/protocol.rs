//! What the two processes say to each other over pipes: the writer what it found, what the engine answered and what
//! it is doing, the judge what to write.
//!
//! `kind u8 · length u32 · payload`, little endian. The writer is killed in the middle of a frame now and then: the
//! rest of a frame that does not come is the end.

use std::io::{self, Read, Write};

use antiphon_wire::ids::{ClientMessageId, ConversationId};

/// A frame beyond this is none: the longest holds an entry.
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// What of the engine's work on its files is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Work {
    /// A batch is being written.
    Commit,
    /// The first batch of a log file that was used before is being written.
    Recycle,
    /// A new log file is being made.
    Prepare,
    /// A memtable becomes a segment, until the manifest names it.
    Flush,
    /// Segments are merged, until the manifest names the new one.
    Compaction,
    /// The manifest is replaced.
    Manifest,
}

impl Work {
    pub(crate) const ALL: [Self; 6] =
        [Self::Commit, Self::Recycle, Self::Prepare, Self::Flush, Self::Compaction, Self::Manifest];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Recycle => "recycling of a log file",
            Self::Prepare => "new log file",
            Self::Flush => "flush",
            Self::Compaction => "compaction",
            Self::Manifest => "manifest edit",
        }
    }
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) created: bool,
    pub(crate) torn: bool,
    pub(crate) position: u64,
    /// Damage of any kind; empty if there is none.
    pub(crate) trouble: String,
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) round: u32,
    /// Commands that may be without an answer.
    pub(crate) window: u32,
    /// How many conversations take part.
    pub(crate) conversations: u32,
    /// Messages of the round before to send again.
    pub(crate) again: Vec<ClientMessageId>,
}

/// One thing said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The engine is open.
    Opened(Opened),
    /// It can't be opened.
    OpenFailed(String),
    /// A conversation as the reader's list shows it.
    Listed {
        conversation: ConversationId,
        last: u64,
        read: u64,
        unread: u64,
        title: String,
    },
    /// An entry of the history, in order.
    Entry(Vec<u8>),
    /// A list or a page that was refused.
    Unreadable(String),
    /// All that is stored has been told.
    WasRead,
    /// Answers.
    Created {
        conversation: ConversationId,
    },
    Sent {
        conversation: ConversationId,
        id: ClientMessageId,
        sequence: u64,
        duplicate: bool,
    },
    Titled {
        conversation: ConversationId,
        sequence: u64,
        title: String,
    },
    Marked {
        conversation: ConversationId,
        read: u64,
    },
    Refused(String),
    /// An entry was given out for delivery; its hash.
    Served {
        conversation: ConversationId,
        sequence: u64,
        hash: u64,
    },
    /// The lane is durable up to here.
    Committed(u64),
    /// Work begins and ends; what fails first ends the account.
    Begin(Work),
    End(Work),
    Failed(String),
    /// The engine was closed in order.
    Closed,
    /// To the writer.
    Plan(Plan),
    Close,
}

struct Payload(Vec<u8>);

impl Payload {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    fn id(&mut self) -> Option<[u8; 16]> {
        self.bytes()?.try_into().ok()
    }

    fn work(&mut self) -> Option<Work> {
        Work::ALL.get(self.number()? as usize).copied()
    }
}

impl Frame {
    /// Writes the frame.
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut payload = Payload(Vec::with_capacity(64));
        let kind = self.encode(&mut payload);
        let mut head = [kind; 5];
        head[1..].copy_from_slice(&(payload.0.len() as u32).to_le_bytes());
        to.write_all(&head)?;
        to.write_all(&payload.0)
    }

    /// Reads a frame; `None` at the end, also one in the middle of a frame.
    pub(crate) fn read(from: &mut impl Read) -> Option<Self> {
        let mut head = [0; 5];
        from.read_exact(&mut head).ok()?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        let mut payload = vec![0; length.min(FRAME_BYTES_MAX) as usize];
        from.read_exact(&mut payload).ok()?;
        Self::decode(head[0], &mut Reader(&payload))
    }

    fn encode(&self, to: &mut Payload) -> u8 {
        match self {
            Self::Opened(opened) => {
                [u64::from(opened.created), u64::from(opened.torn), opened.position]
                    .into_iter()
                    .for_each(|number| to.number(number));
                to.bytes(opened.trouble.as_bytes());
                0
            }
            Self::OpenFailed(text) => text_of(1, text, to),
            Self::Listed { conversation, last, read, unread, title } => {
                to.bytes(&conversation.0);
                [*last, *read, *unread].into_iter().for_each(|number| to.number(number));
                text_of(2, title, to)
            }
            Self::Entry(archive) => {
                to.bytes(archive);
                3
            }
            Self::Unreadable(text) => text_of(4, text, to),
            Self::WasRead => 5,
            Self::Created { conversation } => {
                to.bytes(&conversation.0);
                6
            }
            Self::Sent { conversation, id, sequence, duplicate } => {
                to.bytes(&conversation.0);
                to.bytes(&id.0);
                [*sequence, u64::from(*duplicate)].into_iter().for_each(|number| to.number(number));
                7
            }
            Self::Titled { conversation, sequence, title } => {
                to.bytes(&conversation.0);
                to.number(*sequence);
                text_of(8, title, to)
            }
            Self::Marked { conversation, read } => {
                to.bytes(&conversation.0);
                to.number(*read);
                9
            }
            Self::Refused(text) => text_of(10, text, to),
            Self::Served { conversation, sequence, hash } => {
                to.bytes(&conversation.0);
                [*sequence, *hash].into_iter().for_each(|number| to.number(number));
                11
            }
            Self::Committed(position) => number_of(12, *position, to),
            Self::Begin(work) => number_of(13, *work as u64, to),
            Self::End(work) => number_of(14, *work as u64, to),
            Self::Failed(text) => text_of(15, text, to),
            Self::Closed => 16,
            Self::Plan(plan) => {
                [plan.round, plan.window, plan.conversations]
                    .into_iter()
                    .for_each(|number| to.number(u64::from(number)));
                to.number(plan.again.len() as u64);
                plan.again.iter().for_each(|id| to.bytes(&id.0));
                17
            }
            Self::Close => 18,
        }
    }

    fn decode(kind: u8, from: &mut Reader<'_>) -> Option<Self> {
        Some(match kind {
            0 => Self::Opened(Opened {
                created: from.number()? != 0,
                torn: from.number()? != 0,
                position: from.number()?,
                trouble: from.text()?,
            }),
            1 => Self::OpenFailed(from.text()?),
            2 => Self::Listed {
                conversation: ConversationId(from.id()?),
                last: from.number()?,
                read: from.number()?,
                unread: from.number()?,
                title: from.text()?,
            },
            3 => Self::Entry(from.bytes()?),
            4 => Self::Unreadable(from.text()?),
            5 => Self::WasRead,
            6 => Self::Created { conversation: ConversationId(from.id()?) },
            7 => Self::Sent {
                conversation: ConversationId(from.id()?),
                id: ClientMessageId(from.id()?),
                sequence: from.number()?,
                duplicate: from.number()? != 0,
            },
            8 => {
                Self::Titled { conversation: ConversationId(from.id()?), sequence: from.number()?, title: from.text()? }
            }
            9 => Self::Marked { conversation: ConversationId(from.id()?), read: from.number()? },
            10 => Self::Refused(from.text()?),
            11 => Self::Served {
                conversation: ConversationId(from.id()?),
                sequence: from.number()?,
                hash: from.number()?,
            },
            12 => Self::Committed(from.number()?),
            13 => Self::Begin(from.work()?),
            14 => Self::End(from.work()?),
            15 => Self::Failed(from.text()?),
            16 => Self::Closed,
            17 => {
                let mut number = || Some(from.number()? as u32);
                let (round, window, conversations, count) = (number()?, number()?, number()?, number()?);
                let again = (0..count).map(|_| Some(ClientMessageId(from.id()?))).collect::<Option<_>>()?;
                Self::Plan(Plan { round, window, conversations, again })
            }
            18 => Self::Close,
            _ => return None,
        })
    }
}

fn text_of(kind: u8, text: &str, to: &mut Payload) -> u8 {
    to.bytes(text.as_bytes());
    kind
}

fn number_of(kind: u8, number: u64, to: &mut Payload) -> u8 {
    to.number(number);
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_comes_back_as_it_went_and_its_beginning_is_the_end() {
        let (conversation, id) = (ConversationId([1; 16]), ClientMessageId([2; 16]));
        let frames = [
            Frame::Opened(Opened { created: true, torn: false, position: 7, trouble: "none".into() }),
            Frame::OpenFailed("no".into()),
            Frame::Listed { conversation, last: 1, read: 2, unread: 3, title: "title".into() },
            Frame::Entry(vec![1, 2, 3]),
            Frame::Unreadable("no".into()),
            Frame::WasRead,
            Frame::Created { conversation },
            Frame::Sent { conversation, id, sequence: 4, duplicate: true },
            Frame::Titled { conversation, sequence: 5, title: String::new() },
            Frame::Marked { conversation, read: 6 },
            Frame::Refused("overloaded".into()),
            Frame::Served { conversation, sequence: 8, hash: 9 },
            Frame::Committed(10),
            Frame::Begin(Work::Manifest),
            Frame::End(Work::Commit),
            Frame::Failed("EIO".into()),
            Frame::Closed,
            Frame::Plan(Plan { round: 1, window: 2, conversations: 3, again: vec![id, id] }),
            Frame::Close,
        ];
        for frame in frames {
            let mut bytes = Vec::new();
            frame.write(&mut bytes).unwrap();
            assert_eq!(Frame::read(&mut &bytes[..]), Some(frame));
            assert_eq!(Frame::read(&mut &bytes[..bytes.len() - 1]), None);
        }
    }
}
