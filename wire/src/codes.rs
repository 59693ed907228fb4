//! Stable codes: errors that answer a frame, and close codes that end a connection.
//!
//! A code's number and name never change their meaning. docs/protocol.md has the same table; a test compares them.

use rkyv::{Archive, Deserialize, Serialize};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal $temporary:literal $text:literal;)*) => {
        /// What went wrong, stable for ever.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum ErrorCode { $($(#[$doc])* $variant = $number,)* }

        impl ErrorCode {
            /// Every code, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that JSON carries.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether the same request may succeed later.
            #[must_use]
            pub fn temporary(self) -> bool {
                match self { $(Self::$variant => $temporary,)* }
            }

            /// What happened, for a person, where no better text is known.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The code with that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

error_codes! {
    /// The frame is not JSON or not a valid archive, or a field has the wrong type.
    Malformed = 1 "malformed" false "the frame can't be read";
    /// The frame's kind is not one that this server knows.
    UnknownFrame = 2 "unknown_frame" false "the frame's kind is unknown here";
    /// A request came before `connect`.
    NotConnected = 3 "not_connected" false "send connect first";
    /// A second `connect` on one connection.
    AlreadyConnected = 4 "already_connected" false "this connection is connected already";
    /// The token is missing, not signed by a known key, for another audience, or for another device.
    Unauthenticated = 5 "unauthenticated" false "the token is not accepted";
    /// The token was good once.
    TokenExpired = 6 "token_expired" false "the token has expired; connect with a new one";
    /// No such conversation, or none that you may see.
    NotFound = 7 "not_found" false "no such conversation";
    /// You see it but may not do this to it.
    Forbidden = 8 "forbidden" false "not allowed";
    /// The same client message id came with another body.
    Conflict = 9 "conflict" false "that client_message_id was used for something else";
    /// A field's value makes no sense.
    Invalid = 10 "invalid" false "a value is not allowed";
    /// A frame, text, title or list is beyond its limit.
    TooLarge = 11 "too_large" false "beyond a limit";
    /// A number of things is at its limit.
    LimitReached = 12 "limit_reached" false "a limit is reached";
    /// More requests than this connection may make.
    RateLimited = 13 "rate_limited" true "too many requests";
    /// The disk is full; nothing was stored.
    StorageFull = 14 "storage_full" true "the server's disk is full; nothing was stored";
    /// The log failed; nothing more is stored until the node restarts.
    StorageFailed = 15 "storage_failed" true "the server's log failed; nothing more is stored until it restarts";
    /// Stored bytes are damaged; the range can't be read.
    Damaged = 16 "damaged" false "stored data is damaged in this range";
    /// The server has more to do than it can queue.
    Overloaded = 17 "overloaded" true "the server is overloaded";
    /// The server is going away.
    ShuttingDown = 18 "shutting_down" true "the server is shutting down";
    /// No such message in the conversation, or none that you may see.
    NoMessage = 19 "no_message" false "no such message";
    /// The message was deleted: it does not change any more.
    Deleted = 20 "deleted" false "the message was deleted";
    /// The client message id is older than ids are remembered: whether the message was stored nobody knows.
    TooOld = 21 "too_old" false "the client_message_id is older than ids are remembered";
    /// The device was logged out after its token was issued.
    Revoked = 22 "revoked" false "the device was logged out: get a new token";
}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal $text:literal;)*) => {
        /// Why a connection ends. 4000–4499: come back, with back-off. 4500–4999: do not, until something changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum CloseCode { $($(#[$doc])* $variant = $number,)* }

        impl CloseCode {
            /// Every code, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason that `goodbye` and the close frame carry.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What happened, for a person.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The code with that reason.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }

            /// The code with that number.
            #[must_use]
            pub fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The number in the WebSocket close frame.
            #[must_use]
            pub fn number(self) -> u16 {
                self as u16
            }

            /// Whether a client should come back by itself.
            #[must_use]
            pub fn comes_back(self) -> bool {
                self.number() < 4500
            }
        }
    };
}

close_codes! {
    /// The node restarts.
    Restarting = 4000 "restarting" "the node restarts";
    /// The client read more slowly than its messages came; resume.
    SlowConsumer = 4001 "slow_consumer" "the client read more slowly than its messages came";
    /// Nothing was heard for two heartbeats.
    Silent = 4002 "silent" "nothing was heard for two heartbeats";
    /// The node has no room.
    Overloaded = 4003 "overloaded" "the node has no room";
    /// No `connect` came in time.
    ConnectTimeout = 4004 "connect_timeout" "no connect came in time";
    /// The client sent more frames a second than a connection may.
    RateLimited = 4005 "rate_limited" "more frames a second than a connection may send";
    /// The token is not accepted.
    Unauthenticated = 4500 "unauthenticated" "the token is not accepted";
    /// The token has expired; come back with a new one.
    TokenExpired = 4501 "token_expired" "the token has expired; come back with a new one";
    /// The same device connected again elsewhere.
    Replaced = 4502 "replaced" "the same device connected again elsewhere";
    /// The client broke the protocol.
    ProtocolError = 4503 "protocol_error" "the client broke the protocol";
    /// The device was logged out; come back with a new token.
    Revoked = 4504 "revoked" "the device was logged out; come back with a new token";
    /// So many devices of the user are connected as may be.
    TooManyDevices = 4505 "too_many_devices" "as many devices of the user are connected as may be";
}
