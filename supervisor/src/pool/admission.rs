//! What may be done to a pool and to a volume as they stand: pure, and asked before anything begins.

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::storage::VolumeJob;
use reeve_ipc::model::{PoolName, VolumeName};

/// What is asked of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolAct {
    /// Keeping a definition.
    Define,
    /// Making its directory.
    Build,
    /// Making it active.
    Start,
    /// Making it inactive.
    Stop,
    /// Removing its directory.
    Delete,
    /// Forgetting its definition.
    Undefine,
    /// Whether it starts with the host.
    Autostart,
    /// Looking what is in its directory.
    Refresh,
    /// Making, changing, reading or removing a volume.
    Volume,
}

/// How a pool stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// It has a definition that is kept.
    pub kept: bool,
    /// It is active.
    pub active: bool,
    /// Clients wait for so many jobs of its volumes.
    pub volume_jobs: usize,
    /// A stop waits for jobs that nobody waits for.
    pub stopping: bool,
}

/// Whether `act` may begin.
///
/// # Errors
/// [`ApiErrorCode::WrongState`], [`ApiErrorCode::Busy`].
pub fn admit(name: &PoolName, standing: Standing, act: PoolAct) -> Result<(), ApiError> {
    use PoolAct as A;
    let refuse = |code, why: &str| Err(ApiError::new(code, format!("pool '{name}': {why}")));
    let wrong = |why| refuse(ApiErrorCode::WrongState, why);
    match (act, standing.active) {
        (A::Build | A::Delete | A::Undefine, true) => wrong("it is active; stop it first"),
        (A::Start, true) => wrong("it is active already"),
        (A::Stop | A::Refresh | A::Volume, false) => wrong("it is not active; start it first"),
        (A::Stop, true) if standing.volume_jobs > 0 => refuse(
            ApiErrorCode::Busy,
            "volumes of it are being made or changed; wait for them, or end the clients that asked for it",
        ),
        (A::Volume, true) if standing.stopping => refuse(ApiErrorCode::Busy, "it is being stopped"),
        (A::Autostart, _) if !standing.kept => {
            wrong("it is transient and cannot start with the host; define it first")
        }
        (A::Start | A::Build | A::Delete | A::Undefine | A::Stop, _)
        | (A::Define | A::Autostart | A::Refresh | A::Volume, _) => Ok(()),
    }
}

/// What is asked of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeAct {
    /// Making it.
    Make,
    /// Copying it.
    Copy,
    /// Anything else that changes it, or opens it.
    Change(VolumeJob),
    /// Opening it for a client.
    Open,
}

/// Whether `act` may begin on a volume that is `there` or not, and to which `job` is done.
///
/// # Errors
/// [`ApiErrorCode::NoVolume`], [`ApiErrorCode::VolumeExists`], [`ApiErrorCode::Busy`].
pub fn admit_volume(
    pool: &PoolName,
    name: &VolumeName,
    there: bool,
    job: Option<VolumeJob>,
    act: VolumeAct,
) -> Result<(), ApiError> {
    let refuse = |code, why: &str| {
        Err(ApiError::new(
            code,
            format!("volume '{name}' of pool '{pool}': {why}"),
        ))
    };
    match (act, job) {
        (VolumeAct::Make, Some(VolumeJob::Building)) => {
            refuse(ApiErrorCode::VolumeExists, "it is being built already")
        }
        (VolumeAct::Make, _) if there => refuse(
            ApiErrorCode::VolumeExists,
            "it exists already; choose another name",
        ),
        (VolumeAct::Copy | VolumeAct::Open, Some(VolumeJob::Copying)) if there => Ok(()),
        (_, Some(job)) => refuse(
            ApiErrorCode::Busy,
            &format!("it is being {}; try again when that is done", job.words()),
        ),
        (VolumeAct::Make, None) => Ok(()),
        (_, None) if there => Ok(()),
        (_, None) => refuse(ApiErrorCode::NoVolume, "there is none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<(), ApiError>) -> Option<ApiErrorCode> {
        result.err().map(|error| error.code)
    }

    #[test]
    fn every_act_is_admitted_where_libvirt_admits_it() {
        use PoolAct as A;
        let name = "images".parse().unwrap();
        let wrong = Some(ApiErrorCode::WrongState);
        for (act, inactive, active) in [
            (A::Define, None, None),
            (A::Build, None, wrong),
            (A::Start, None, wrong),
            (A::Stop, wrong, None),
            (A::Delete, None, wrong),
            (A::Undefine, None, wrong),
            (A::Autostart, None, None),
            (A::Refresh, wrong, None),
            (A::Volume, wrong, None),
        ] {
            let standing = |active| Standing {
                kept: true,
                active,
                ..Standing::default()
            };
            assert_eq!(
                code(admit(&name, standing(false), act)),
                inactive,
                "{act:?}"
            );
            assert_eq!(code(admit(&name, standing(true), act)), active, "{act:?}");
        }
        let transient = Standing {
            active: true,
            ..Standing::default()
        };
        assert_eq!(code(admit(&name, transient, A::Autostart)), wrong);
        let busy = Standing {
            volume_jobs: 1,
            ..transient
        };
        assert_eq!(code(admit(&name, busy, A::Stop)), Some(ApiErrorCode::Busy));
        assert_eq!(code(admit(&name, busy, A::Refresh)), None);
        let stopping = Standing {
            stopping: true,
            ..transient
        };
        let volume = admit(&name, stopping, A::Volume);
        assert_eq!(code(volume), Some(ApiErrorCode::Busy));
    }

    #[test]
    fn one_job_a_volume_and_copies_beside_each_other() {
        use VolumeAct as A;
        use VolumeJob as J;
        let (pool, name) = ("images".parse().unwrap(), "disk".parse().unwrap());
        let admit = |there, job, act| code(admit_volume(&pool, &name, there, job, act));
        let (exists, busy, none) = (
            Some(ApiErrorCode::VolumeExists),
            Some(ApiErrorCode::Busy),
            Some(ApiErrorCode::NoVolume),
        );
        let acts = [
            A::Copy,
            A::Open,
            A::Change(J::Wiping),
            A::Change(J::Deleting),
        ];
        assert_eq!(admit(false, None, A::Make), None);
        assert_eq!(admit(true, None, A::Make), exists);
        assert_eq!(admit(false, Some(J::Building), A::Make), exists);
        for act in acts {
            assert_eq!(admit(false, None, act), none, "{act:?}");
            assert_eq!(admit(true, None, act), None, "{act:?}");
            assert_eq!(admit(false, Some(J::Building), act), busy, "{act:?}");
            for job in [J::Resizing, J::Wiping, J::Deleting] {
                assert_eq!(admit(true, Some(job), act), busy, "{act:?} while {job:?}");
            }
        }
        assert_eq!(admit(true, Some(J::Copying), A::Copy), None);
        assert_eq!(admit(true, Some(J::Copying), A::Open), None);
        assert_eq!(admit(true, Some(J::Copying), A::Change(J::Deleting)), busy);
    }
}
