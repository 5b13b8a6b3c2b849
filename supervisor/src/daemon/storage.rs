//! The calls about storage pools and volumes: from their arguments to the pools, and back.

use std::sync::Arc;

use reeve_ipc::api::call::{
    AnswerBody, CallBody, Operation, PoolPage, PoolRef, VolumeRef, VolumeStream, WipeAlgorithm,
};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::model::VolumeName;

use super::Daemon;
use crate::api::Answer;
use crate::domain::actor::SessionId;
use crate::pool::Pools;
use crate::pool::change::Change;
use crate::pool::handle::{Request, VolumeAnswer, VolumeRequest};
use crate::pool::stream::Begun;

type Made = Result<AnswerBody, ApiError>;

fn later<W: Future<Output = Made> + Send + 'static>(work: W) -> Answer {
    Answer::Later(Box::pin(async move {
        work.await.map(|answer| (answer, Vec::new()))
    }))
}

impl Daemon {
    /// Answers `call`, if it is about storage.
    #[expect(
        clippy::result_large_err,
        reason = "not an error: the call, for whoever serves it"
    )]
    pub(super) fn of_storage(
        &self,
        session: SessionId,
        call: CallBody,
    ) -> Result<Answer, CallBody> {
        use AnswerBody as A;
        use CallBody as C;
        let Some(pools) = self.pools.clone() else {
            return without_pools(call);
        };
        Ok(match call {
            C::PoolList(list) => {
                let page = pools.page(list.after.as_ref(), list.filter);
                Answer::Now(Ok((A::PoolList(page), Vec::new())))
            }
            C::PoolGet(get) => later(async move {
                let details = pools.get(&get.pool).await?;
                Ok(A::PoolGet(Box::new(details)))
            }),
            C::PoolDefine(call) => later(async move {
                let summary = pools.define(*call.pool, call.only_new).await?;
                Ok(A::PoolDefine(summary))
            }),
            C::PoolCreate(call) => later(async move {
                let summary = pools.create(*call.pool, call.build).await?;
                Ok(A::PoolCreate(summary))
            }),
            C::PoolStart(call) => later(async move {
                let request = Request::Start {
                    transient: None,
                    build: call.build,
                };
                let summary = pools.ask(&call.pool, request).await?;
                Ok(A::PoolStart(summary))
            }),
            C::PoolBuild(call) => pool(pools, call.pool, Request::Build, A::PoolBuild(())),
            C::PoolStop(call) => pool(pools, call.pool, Request::Stop, A::PoolStop(())),
            C::PoolDelete(call) => pool(pools, call.pool, Request::Delete, A::PoolDelete(())),
            C::PoolUndefine(call) => pool(pools, call.pool, Request::Undefine, A::PoolUndefine(())),
            C::PoolAutostartSet(call) => {
                let request = Request::Autostart(call.autostart);
                pool(pools, call.pool, request, A::PoolAutostartSet(()))
            }
            C::PoolRefresh(call) => pool(pools, call.pool, Request::Refresh, A::PoolRefresh(())),
            C::VolumeList(list) => later(async move {
                let page = pools.volumes(&list.pool, list.after.as_ref()).await?;
                Ok(A::VolumeList(page))
            }),
            C::VolumeGet(get) => later(async move {
                let volume = pools.volume(&get.volume).await?;
                Ok(A::VolumeGet(Box::new(volume)))
            }),
            C::VolumeCreate(call) => later(async move {
                let made = pools.make(&call.pool, *call.volume, call.preallocate_metadata);
                Ok(A::VolumeCreate(Box::new(made.await?)))
            }),
            C::VolumeClone(call) => later(async move {
                let made = pools.copy(
                    &call.pool,
                    *call.volume,
                    &call.from,
                    call.preallocate_metadata,
                    call.reflink,
                    call.from_format,
                );
                Ok(A::VolumeClone(Box::new(made.await?)))
            }),
            C::VolumeResize(call) => {
                let change = Change::Resize {
                    capacity: call.capacity,
                    allocate: call.allocate,
                    shrink: call.shrink,
                    format: call.format,
                };
                volume(pools, call.volume, change, A::VolumeResize(()))
            }
            C::VolumeWipe(call) => match call.algorithm {
                WipeAlgorithm::Zero => volume(pools, call.volume, Change::Wipe, A::VolumeWipe(())),
                WipeAlgorithm::Other => Answer::Now(Err(ApiError::new(
                    ApiErrorCode::Unsupported,
                    format!(
                        "volume {}: it is wiped with zeros only, which leaves as much behind as any other rule on \
                         a disk of today",
                        call.volume
                    ),
                ))),
            },
            C::VolumeDelete(call) => {
                let change = Change::Delete {
                    zeroed: call.zeroed,
                };
                volume(pools, call.volume, change, A::VolumeDelete(()))
            }
            C::VolumeUpload(call) => {
                let open = move |name| VolumeRequest::Open {
                    name,
                    write: true,
                    offset: call.offset,
                    length: call.length,
                };
                self.stream(session, pools, call.volume, open, A::VolumeUpload)
            }
            C::VolumeDownload(call) => {
                let open = move |name| VolumeRequest::Open {
                    name,
                    write: false,
                    offset: call.offset,
                    length: call.length,
                };
                self.stream(session, pools, call.volume, open, A::VolumeDownload)
            }
            other => return Err(other),
        })
    }

    /// Opens a volume for a client; what it has of it ends with its connection.
    fn stream(
        &self,
        session: SessionId,
        pools: Pools,
        volume: VolumeRef,
        open: impl FnOnce(VolumeName) -> VolumeRequest + Send + 'static,
        answer: fn(VolumeStream) -> AnswerBody,
    ) -> Answer {
        let streams = Arc::clone(&self.streams);
        Answer::Later(Box::pin(async move {
            let Begun {
                stream,
                client,
                ending,
            } = opened(pools.ask_volume(&volume, open).await?)?;
            streams.keep(session, ending);
            Ok((answer(stream), vec![client]))
        }))
    }
}

/// Answers `call` where there are no pools and can be none, if it is about storage.
#[expect(
    clippy::result_large_err,
    reason = "not an error: the call, for whoever serves it"
)]
fn without_pools(call: CallBody) -> Result<Answer, CallBody> {
    use CallBody as C;
    let refused = |operation: Operation, code, why: &str| {
        let message = format!("cannot {}: {why}", operation.name());
        Ok(Answer::Now(Err(ApiError::new(code, message))))
    };
    let operation = call.operation();
    match call {
        C::PoolList(_) => {
            let page = PoolPage {
                pools: Vec::new(),
                more: false,
            };
            Ok(Answer::Now(Ok((AnswerBody::PoolList(page), Vec::new()))))
        }
        C::PoolGet(_) => refused(operation, ApiErrorCode::NoPool, "there are no pools here"),
        C::VolumeGet(_) => refused(operation, ApiErrorCode::NoVolume, "there are no pools here"),
        C::PoolDefine(_)
        | C::PoolCreate(_)
        | C::PoolBuild(_)
        | C::PoolStart(_)
        | C::PoolStop(_)
        | C::PoolDelete(_)
        | C::PoolUndefine(_)
        | C::PoolAutostartSet(_)
        | C::PoolRefresh(_)
        | C::VolumeList(_)
        | C::VolumeCreate(_)
        | C::VolumeClone(_)
        | C::VolumeResize(_)
        | C::VolumeWipe(_)
        | C::VolumeDelete(_)
        | C::VolumeUpload(_)
        | C::VolumeDownload(_) => {
            let why = "the test hypervisor has no storage pools";
            refused(operation, ApiErrorCode::Unsupported, why)
        }
        other => Err(other),
    }
}

fn pool(pools: Pools, pool: PoolRef, request: Request, answer: AnswerBody) -> Answer {
    later(async move {
        pools.ask(&pool, request).await?;
        Ok(answer)
    })
}

/// What was begun goes on to its end though the client leaves: no volume is left halfway.
fn volume(pools: Pools, volume: VolumeRef, change: Change, answer: AnswerBody) -> Answer {
    later(async move {
        let request = |name| VolumeRequest::Change(name, change);
        pools.ask_volume(&volume, request).await?;
        Ok(answer)
    })
}

fn opened(answer: VolumeAnswer) -> Result<Begun, ApiError> {
    match answer {
        VolumeAnswer::Stream(begun) => Ok(begun),
        _ => Err(ApiError::new(
            ApiErrorCode::Host,
            "the volume was not opened",
        )),
    }
}
