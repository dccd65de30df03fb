//! Secrets, and which of their keys a provider refers to: nothing else of them leaves this process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use sluice_config::push::{ResourceType, SecretMessage};

use super::facts::Credential;
use super::meaning::CredentialReference;
use super::object::{ObjectKey, Secret};
use super::output::{GivenOut, Output};
use crate::state::Resource;

/// Labelled Secrets and their users.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    secrets: HashMap<ObjectKey, Secret>,
    /// Provider and the key that it refers to, by Secret.
    users: HashMap<ObjectKey, BTreeMap<ObjectKey, String>>,
    dirty: HashSet<ObjectKey>,
}

impl Credentials {
    pub(super) fn set(&mut self, secret: Secret) {
        let key = secret.key.clone();
        if self.secrets.get(&key) != Some(&secret) {
            self.secrets.insert(key.clone(), secret);
            self.dirty.insert(key);
        }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        if self.secrets.remove(key).is_some() {
            self.dirty.insert(key.clone());
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.secrets.keys()
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.secrets.len()
    }

    /// A provider refers to something else than before, or to nothing any more.
    pub(super) fn refer(
        &mut self,
        provider: &ObjectKey,
        old: Option<&CredentialReference>,
        new: Option<&CredentialReference>,
    ) {
        if old == new {
            return;
        }
        if let Some(old) = old
            && let Some(users) = self.users.get_mut(&old.secret)
        {
            users.remove(provider);
            if users.is_empty() {
                self.users.remove(&old.secret);
            }
        }
        if let Some(new) = new {
            let users = self.users.entry(new.secret.clone()).or_default();
            users.insert(provider.clone(), new.key.clone());
        }
        let secrets = [old, new].into_iter().flatten();
        self.dirty.extend(secrets.map(|to| to.secret.clone()));
    }

    /// What is known of the credential that a provider refers to.
    pub(super) fn credential(&self, reference: &CredentialReference) -> Credential {
        let (name, key) = (reference.secret.name.to_string(), reference.key.clone());
        let Some(secret) = self.secrets.get(&reference.secret) else {
            return Credential::NotFound { secret: name };
        };
        match secret.data.get(&key) {
            None => Credential::KeyNotFound { secret: name, key },
            Some(value) if value.is_empty() => Credential::KeyNotFound { secret: name, key },
            Some(value) if !is_header_value(value) => Credential::Invalid { secret: name, key },
            Some(_) => Credential::Resolved,
        }
    }

    /// Works off what is dirty. Answers the providers whose credentials may have changed.
    pub(super) fn reconcile(
        &mut self,
        given_out: &mut GivenOut,
        output: &mut Output,
    ) -> HashSet<ObjectKey> {
        let mut providers = HashSet::new();
        for key in std::mem::take(&mut self.dirty) {
            let users = self.users.get(&key);
            providers.extend(users.into_iter().flat_map(BTreeMap::keys).cloned());
            let name: Arc<str> = key.to_string().into();
            let resource = self.resource(&key, name.clone());
            given_out.settle(ResourceType::Secret, name, resource, output);
        }
        providers
    }

    /// `None` unless it is there and somebody refers to something in it.
    fn resource(&self, key: &ObjectKey, name: Arc<str>) -> Option<Resource> {
        let (secret, users) = (self.secrets.get(key)?, self.users.get(key)?);
        let entry = |key: &String| Some((key.clone(), secret.data.get(key)?.clone()));
        let data: BTreeMap<String, Vec<u8>> = users.values().filter_map(entry).collect();
        if data.is_empty() {
            return None;
        }
        let message = SecretMessage {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            data,
        };
        let value = Bytes::from(message.encode_to_vec());
        let namespace = key.namespace.clone();
        Some(Resource::new(ResourceType::Secret, name, namespace, value))
    }
}

/// May it stand in a header? A newline at the end is what `echo` leaves in a Secret; gateways cut it off.
fn is_header_value(value: &[u8]) -> bool {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    let good = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f);
    !value.is_empty() && value.iter().all(good)
}
