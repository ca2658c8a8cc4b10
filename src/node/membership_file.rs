//! What a node remembers of the cluster it belongs to: `cluster.bin` in its data directory.
//!
//! Written before the identity, so that an identity always comes with it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use prost::Message;

use crate::id::NodeId;
use crate::meta::ClusterMap;
use crate::node::groups::Membership;
use crate::proto::internal as pb;
use crate::store::identity::{DataDir, Identity, Refusal, replace};

const FILE: &str = "cluster.bin";
const INSTANCE: &str = "instance";
const VERSION: u8 = 1;

/// The data directory, with what it says of the cluster.
pub(super) struct MembershipFile(Mutex<DataDir>);

/// Why the membership cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The identity was refused, or the file system failed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This file is not what it should be.
    #[error(
        "{0} in the data directory is damaged. Restore it from a backup, or remove this node \
         from the cluster, move its data directory away, and let it join under a new id"
    )]
    Damaged(&'static str),
    /// The identity is not the membership's.
    #[error(
        "the data directory's files do not agree: by its identity it is node {identity}, by {FILE} \
         node {member}. One of them is damaged, or another node's: put this node's own back, or \
         remove it from the cluster, move its data directory away, and let it join under a new id"
    )]
    Mixed {
        /// Whose the identity is, with its cluster.
        identity: String,
        /// Whose the membership is, with its cluster.
        member: String,
    },
}

impl MembershipFile {
    pub fn new(directory: DataDir) -> MembershipFile {
        MembershipFile(Mutex::new(directory))
    }

    fn directory(&self) -> std::sync::MutexGuard<'_, DataDir> {
        self.0.lock().expect("no holder of the lock panics")
    }

    /// The membership on disk, if there is one; finishes what a crash interrupted.
    pub fn read(&self) -> Result<Option<Membership>, MembershipError> {
        let membership = self.stored()?;
        let mut directory = self.directory();
        let identity = directory.identity().cloned();
        let Some(membership) = membership else {
            let lost = MembershipError::Damaged(FILE);
            return if identity.is_none() { Ok(None) } else { Err(lost) };
        };
        match identity {
            None => directory.adopt(membership.identity())?,
            Some(identity) if identity == membership.identity() => {}
            Some(identity) => {
                let name = |id: &Identity| format!("{} of cluster {}", id.node_id, id.cluster_id);
                let (identity, member) = (name(&identity), name(&membership.identity()));
                return Err(MembershipError::Mixed { identity, member });
            }
        }
        Ok(Some(membership))
    }

    /// What the file says, whatever the identity says.
    pub fn stored(&self) -> Result<Option<Membership>, MembershipError> {
        let path = self.directory().path().join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(decode(&bytes).ok_or(MembershipError::Damaged(FILE))?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Refusal::Io { path, source }.into()),
        }
    }

    /// The directory.
    pub fn path(&self) -> PathBuf {
        self.directory().path().to_path_buf()
    }

    /// Writes the membership of another cluster durably; the identity is next
    /// ([`MembershipFile::rename`]), and until then the two do not agree.
    pub fn write_recovered(&self, membership: &Membership) -> Result<(), MembershipError> {
        Ok(replace(self.directory().path(), FILE, &encode(membership))?)
    }

    /// Makes the identity that of a membership which was written.
    pub fn rename(&self, membership: &Membership) -> Result<(), MembershipError> {
        Ok(self.directory().rename(membership.identity())?)
    }

    /// Writes a membership, and this node's identity with it, durably.
    pub fn write(&self, membership: &Membership) -> Result<(), MembershipError> {
        let mut directory = self.directory();
        replace(directory.path(), FILE, &encode(membership))?;
        Ok(directory.adopt(membership.identity())?)
    }

    /// The directory's random name, made when it is first asked for.
    pub fn instance(&self) -> Result<String, MembershipError> {
        let directory = self.directory();
        let path = directory.path().join(INSTANCE);
        match fs::read_to_string(&path) {
            Ok(instance) if instance.len() == 32 => Ok(instance),
            Ok(_) => Err(MembershipError::Damaged(INSTANCE)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let instance = uuid::Uuid::from_bytes(rand::random()).simple().to_string();
                replace(directory.path(), INSTANCE, instance.as_bytes())?;
                Ok(instance)
            }
            Err(source) => Err(Refusal::Io { path, source }.into()),
        }
    }
}

impl Membership {
    fn identity(&self) -> Identity {
        Identity { cluster_id: self.cluster_id.clone(), node_id: self.node_id }
    }
}

fn encode(membership: &Membership) -> Vec<u8> {
    let stored = pb::StoredClusterMembership {
        node_id: membership.node_id.0,
        map: membership.map.encode(),
        seed: membership.seed.clone(),
    };
    let mut out = vec![VERSION];
    out.extend_from_slice(&stored.encode_to_vec());
    out
}

fn decode(bytes: &[u8]) -> Option<Membership> {
    let (version, stored) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let stored = pb::StoredClusterMembership::decode(stored).ok()?;
    let map = ClusterMap::decode(&stored.map).ok().filter(ClusterMap::is_formed)?;
    let cluster_id = map.cluster_id().to_string();
    Some(Membership { cluster_id, node_id: NodeId(stored.node_id), map, seed: stored.seed })
}

#[cfg(test)]
mod tests;
