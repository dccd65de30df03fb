//! The messages as a simulated gateway needs them: read without copying, requests written once and sent by many.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// `DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(message, optional, tag = "1")]
    pub(super) node: Option<Node>,
    #[prost(string, tag = "2")]
    pub(super) type_url: String,
    #[prost(map = "string, string", tag = "5")]
    pub(super) initial_resource_versions: HashMap<String, String>,
    #[prost(bytes = "bytes", tag = "6")]
    pub(super) response_nonce: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

/// `DeltaDiscoveryResponse`. Texts are bytes: the same on the wire, and not copied.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(message, repeated, tag = "2")]
    pub(super) resources: Vec<Resource>,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) type_url: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) nonce: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub(super) removed: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) version: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(super) any: Option<Any>,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) name: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

/// Sends requests that are encoded already; reads responses and says how large they were.
#[derive(Debug, Clone, Copy)]
pub(super) struct GatewayCodec;

impl Codec for GatewayCodec {
    type Encode = Bytes;
    type Decode = (usize, Response);
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for GatewayCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for GatewayCodec {
    type Item = (usize, Response);
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = from.remaining();
        let response = Response::decode(from);
        let response = response.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some((bytes, response)))
    }
}
