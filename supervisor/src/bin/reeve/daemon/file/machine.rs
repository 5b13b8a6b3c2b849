//! Machine types by name.

use reeve_ipc::spec::MachineType;
use serde::{Deserialize, Deserializer, Serializer};

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the shape serde asks for"
)]
pub(super) fn serialize<S: Serializer>(
    machine: &MachineType,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(machine.name())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<MachineType, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = MachineType::ALL
        .into_iter()
        .find(|known| known.name() == name);
    known.ok_or_else(|| {
        let names = MachineType::ALL.map(MachineType::name).join(", ");
        serde::de::Error::custom(format!("no machine type '{name}'; there are {names}"))
    })
}
