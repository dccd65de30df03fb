//! From a difference to the responses that bring it: types in their order, large ones in pieces, the end last.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use sluice_config::push::{BATCH, BatchMessage, ResourceType};

use super::wire::Response;
use crate::state::{Diff, Entry, Resource, TypeDiff};

/// Bytes of names and values in one response, unless a single resource is larger. The contract allows 256 KiB; a
/// connection keeps a buffer of the size of its largest response.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// The responses of one batch, with consecutive nonces from `first_nonce` on.
pub(super) fn responses(diff: Diff, control: &str, first_nonce: u64) -> Vec<Arc<Response>> {
    let end = end(&diff, control);
    let mut responses = Vec::new();
    for (kind, told) in ResourceType::ALL.into_iter().zip(diff.types) {
        split(kind, told, &mut responses);
    }
    responses.push(Response {
        kind: ResourceType::Batch,
        nonce: 0,
        upserts: vec![Arc::new(end)],
        removals: Vec::new(),
    });
    let numbered = responses.into_iter().zip(first_nonce..);
    numbered
        .map(|(response, nonce)| Arc::new(Response { nonce, ..response }))
        .collect()
}

/// The resource that closes the batch.
fn end(diff: &Diff, control: &str) -> Entry {
    let message = BatchMessage {
        generation: diff.generation,
        changed_at: diff.oldest_change.map_or(0, microseconds),
        control: control.to_owned(),
    };
    let value = message.encode_to_vec().into();
    Entry {
        resource: Resource::new(ResourceType::Batch, BATCH, "", value),
        generation: diff.generation,
    }
}

fn microseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Removals first, so that a name that moved between resources never stands twice.
fn split(kind: ResourceType, told: TypeDiff, into: &mut Vec<Response>) {
    let empty = || Response {
        kind,
        nonce: 0,
        upserts: Vec::new(),
        removals: Vec::new(),
    };
    let (mut response, mut bytes) = (empty(), 0);
    let mut make_room = |more: usize, response: &mut Response| {
        if bytes > 0 && bytes + more > MAX_RESPONSE_BYTES {
            into.push(std::mem::replace(response, empty()));
            bytes = 0;
        }
        bytes += more;
    };
    for name in told.removals {
        make_room(name.len(), &mut response);
        response.removals.push(name);
    }
    for entry in told.upserts {
        let resource = &entry.resource;
        make_room(resource.name.len() + resource.value.len(), &mut response);
        response.upserts.push(entry);
    }
    if !response.upserts.is_empty() || !response.removals.is_empty() {
        into.push(response);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn diff(resources: &[(ResourceType, usize, usize)]) -> Diff {
        let mut diff = Diff {
            generation: 3,
            oldest_change: Some(UNIX_EPOCH + Duration::from_micros(5)),
            ..Diff::default()
        };
        for &(kind, count, bytes) in resources {
            diff.types[kind as usize].upserts = (0..count)
                .map(|number| {
                    let value = vec![0; bytes].into();
                    let resource = Resource::new(kind, format!("a/{number:04}"), "a", value);
                    Arc::new(Entry {
                        resource,
                        generation: 3,
                    })
                })
                .collect();
        }
        diff
    }

    fn kinds(responses: &[Arc<Response>]) -> Vec<ResourceType> {
        responses.iter().map(|response| response.kind).collect()
    }

    #[test]
    fn types_come_in_their_order_and_the_end_comes_last() {
        use ResourceType::{Batch, Endpoint, ModelRoute, ModelServer};
        let diff = diff(&[(ModelRoute, 1, 9), (ModelServer, 1, 9), (Endpoint, 1, 9)]);
        let responses = responses(diff, "c", 8);
        assert_eq!(
            kinds(&responses),
            [ModelServer, Endpoint, ModelRoute, Batch]
        );
        let nonces: Vec<_> = responses.iter().map(|response| response.nonce).collect();
        assert_eq!(nonces, [8, 9, 10, 11]);
        let end = &responses[3].upserts[0].resource;
        let end = BatchMessage::decode(end.value.clone()).unwrap();
        let expected = BatchMessage {
            generation: 3,
            changed_at: 5,
            control: "c".into(),
        };
        assert_eq!(end, expected);
    }

    #[test]
    fn a_batch_without_content_is_an_end_alone() {
        let responses = responses(Diff::default(), "c", 1);
        assert_eq!(kinds(&responses), [ResourceType::Batch]);
    }

    #[test]
    fn what_is_large_comes_in_pieces_and_nothing_is_lost() {
        let kind = ResourceType::Endpoint;
        let mut diff = diff(&[(kind, 1000, 200)]);
        diff.types[kind as usize].removals =
            (0..20_000).map(|n| format!("b/{n:04}").into()).collect();
        let responses = responses(diff, "c", 1);
        let bytes = |response: &Response| {
            let values: usize = response
                .upserts
                .iter()
                .map(|entry| entry.resource.value.len())
                .sum();
            let names: usize = response.removals.iter().map(|name| name.len()).sum();
            values + names
        };
        assert!(
            responses
                .iter()
                .all(|response| bytes(response) <= MAX_RESPONSE_BYTES)
        );
        assert_eq!(
            responses
                .iter()
                .map(|response| response.upserts.len())
                .sum::<usize>(),
            1001
        );
        assert_eq!(
            responses
                .iter()
                .map(|response| response.removals.len())
                .sum::<usize>(),
            20_000
        );
        assert_eq!(responses.len(), 7, "{:?}", kinds(&responses));
    }

    #[test]
    fn a_resource_larger_than_a_response_comes_alone() {
        let diff = diff(&[(ResourceType::ModelRoute, 2, MAX_RESPONSE_BYTES + 1)]);
        assert_eq!(responses(diff, "c", 1).len(), 3);
    }
}
