//! What of the platform itself a guest finds, beside the devices on its bus.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a guest finds of the platform. By default nothing: a definition that says nothing of it is of a
/// guest that never saw any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Its generation id (libvirt `<genid>`).
    pub generation_id: GenerationId,
    /// A port by which it says that its kernel has panicked (libvirt `<panic model='isa'/>`).
    pub panic_port: bool,
}

/// By what a guest finds out that it goes on from a moment from which it, or a copy of it, has gone on
/// before (Microsoft, Virtual Machine Generation ID): its random numbers, for one, are then no secret.
/// Whatever is said here, the id is another after the machine was made of saved records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GenerationId {
    /// It has none.
    #[default]
    Absent,
    /// Another at each start.
    Random,
    /// This one at each start.
    Fixed(Uuid),
}
