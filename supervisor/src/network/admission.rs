//! What may be done to a network as it stands: pure, and asked before anything begins. The words are libvirt's where
//! its programs look at them.

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::model::{Forward, Network};

/// What is asked of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkAct {
    /// Keeping a definition.
    Define,
    /// Making it active, with the definition that is kept or another.
    Start,
    /// Making it inactive.
    Stop,
    /// Forgetting its definition.
    Undefine,
    /// Whether it starts with the host.
    Autostart,
    /// Changing one definition of it, or both.
    Change {
        /// The one that it is active with.
        live: bool,
        /// The one that is kept.
        persistent: bool,
    },
}

/// How a network stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// It has a definition that is kept.
    pub kept: bool,
    /// It is active.
    pub active: bool,
}

/// Whether `act` may begin.
///
/// # Errors
/// [`ApiErrorCode::WrongState`], [`ApiErrorCode::InvalidArgument`].
pub fn admit(network: &Network, standing: Standing, act: NetworkAct) -> Result<(), ApiError> {
    use NetworkAct as A;
    let name = &network.name;
    let wrong = |why: String| Err(ApiError::new(ApiErrorCode::WrongState, why));
    match act {
        A::Start if standing.active => wrong(format!("network is already active as '{name}'")),
        A::Stop if !standing.active => wrong(format!("network '{name}' is not active")),
        A::Undefine if !standing.kept => wrong("can't undefine transient network".to_owned()),
        A::Autostart if !standing.kept => {
            wrong("cannot set autostart for transient network".to_owned())
        }
        A::Change {
            live: false,
            persistent: false,
        } => {
            let why = format!(
                "network '{name}': neither its active nor its kept definition is to be changed"
            );
            Err(ApiError::new(ApiErrorCode::InvalidArgument, why))
        }
        A::Change { live: true, .. } if !standing.active => {
            wrong(format!("network '{name}' is not active"))
        }
        A::Change {
            persistent: true, ..
        } if !standing.kept => {
            wrong("cannot change persistent config of a transient network".to_owned())
        }
        A::Define | A::Start | A::Stop | A::Undefine | A::Autostart | A::Change { .. } => Ok(()),
    }
}

/// Whether this build can start such a network.
///
/// # Errors
/// [`ApiErrorCode::Unsupported`].
pub fn startable(network: &Network) -> Result<(), ApiError> {
    match network.forward {
        Forward::HostDevices { .. } => Err(ApiError::new(
            ApiErrorCode::Unsupported,
            format!(
                "network '{}' gives out devices of the host, which are not passed through yet",
                network.name
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_act_is_admitted_where_libvirt_admits_it() {
        use NetworkAct as A;
        let uuid = reeve_ipc::model::NetworkUuid(Uuid::from_u128(1));
        let network = Network::new("lan".parse().unwrap(), uuid);
        let change = |live, persistent| A::Change { live, persistent };
        // Inactive and kept, active and kept, active and transient.
        for (act, admitted) in [
            (A::Define, [true, true, true]),
            (A::Start, [true, false, false]),
            (A::Stop, [false, true, true]),
            (A::Undefine, [true, true, false]),
            (A::Autostart, [true, true, false]),
            (change(true, false), [false, true, true]),
            (change(false, true), [true, true, false]),
            (change(true, true), [false, true, false]),
            (change(false, false), [false, false, false]),
        ] {
            let standings = [(true, false), (true, true), (false, true)];
            let given = standings
                .map(|(kept, active)| admit(&network, Standing { kept, active }, act).is_ok());
            assert_eq!(given, admitted, "{act:?}");
        }
        let transient = Standing {
            kept: false,
            active: true,
        };
        let refused = admit(&network, transient, A::Autostart).unwrap_err();
        assert_eq!(
            refused.message,
            "cannot set autostart for transient network"
        );
        let inactive = Standing {
            kept: true,
            active: false,
        };
        let refused = admit(&network, inactive, A::Stop).unwrap_err();
        assert_eq!(refused.message, "network 'lan' is not active");
        assert_eq!(refused.code, ApiErrorCode::WrongState);
    }
}
