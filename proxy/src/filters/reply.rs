//! Answers that a filter gives in an engine's place.
//!
//! Not for the wire form of error objects: whoever sends the reply writes them in the client's dialect.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::http::ResponseHead;

/// An answer made by the gateway itself.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalReply {
    /// Status.
    pub status: StatusCode,
    /// Fields, without those that follow from the body (`content-length`, an error object's `content-type`).
    pub headers: HeaderMap,
    /// Body.
    pub body: ReplyBody,
}

/// Body of a local reply.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplyBody {
    /// As it stands; may be empty.
    Bytes(Bytes),
    /// To be written as the API's error object.
    Error {
        /// Stable word for programs, such as `filter_error`.
        code: Cow<'static, str>,
        /// For people; names the limit and the value where there is one.
        message: String,
    },
}

impl LocalReply {
    /// A reply without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: ReplyBody::Bytes(Bytes::new()),
        }
    }

    /// An error object.
    pub fn error(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: ReplyBody::Error {
                code: code.into(),
                message: message.into(),
            },
        }
    }

    /// Head and body apart, for [`super::Stream::response_head`] and then sending.
    pub fn into_parts(self) -> (ResponseHead, ReplyBody) {
        let head = ResponseHead {
            status: self.status,
            headers: self.headers,
        };
        (head, self.body)
    }
}
