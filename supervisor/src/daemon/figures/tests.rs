use reeve_ipc::api::call::AnswerBody;
use reeve_ipc::api::figures::{DomainFigures, FiguresPage, VcpuFigures, VcpuState};
use reeve_ipc::api::message::{CallId, ToClient};
use reeve_ipc::api::view::{DomainDetails, DomainState, DomainSummary, ShutOffReason, VcpuStats};
use reeve_ipc::codec;
use reeve_ipc::device::{BalloonFigures, DiskFigures, GuestMemoryFigures, OperationFigures};
use reeve_ipc::model::{DomainUuid, MemorySize};
use uuid::Uuid;

use super::*;

fn summary(name: &str) -> DomainSummary {
    DomainSummary {
        name: name.parse().unwrap(),
        uuid: DomainUuid(Uuid::max()),
        id: Some(u32::MAX),
        state: DomainState::ShutOff(ShutOffReason::Failed),
        persistent: true,
        autostart: Some(u32::MAX),
        vcpus: u32::MAX,
        memory: MemorySize(u64::MAX),
        title: Some("T".repeat(100)),
        unresponsive: true,
        reaping: true,
        job: None,
        max_vcpus: u32::MAX,
        current_memory: MemorySize(u64::MAX),
        max_memory: MemorySize(u64::MAX),
    }
}

/// All of it as large as can be.
fn figures(name: &str, vcpus: u32, devices: usize, path: usize) -> DomainFigures {
    let operation = OperationFigures {
        operations: u64::MAX,
        bytes: u64::MAX,
        nanoseconds: u64::MAX,
        errors: u64::MAX,
    };
    let disk = DeviceFigures::Disk(DiskFigures {
        reads: operation,
        writes: operation,
        flushes: operation,
        discards: operation,
    });
    let most = Some(u64::MAX);
    let balloon = DeviceFigures::Balloon(BalloonFigures {
        target_bytes: u64::MAX,
        actual_bytes: u64::MAX,
        guest: Some(GuestMemoryFigures {
            age_ms: u64::MAX,
            swap_in: most,
            swap_out: most,
            major_faults: most,
            minor_faults: most,
            free: most,
            total: most,
            available: most,
            disk_caches: most,
        }),
    });
    let device = |number: usize| DeviceStats {
        device: format!("channel:{}", "c".repeat(63)).parse().unwrap(),
        slot: 31.try_into().unwrap(),
        host: Some("p".repeat(path)),
        figures: if number % 2 == 0 { disk } else { balloon },
    };
    let vcpu = |vcpu| VcpuFigures {
        stats: VcpuStats {
            vcpu,
            run_ns: u64::MAX,
            wait_ns: Some(u64::MAX),
        },
        state: VcpuState::Blocked,
        cpu: Some(u32::MAX),
    };
    DomainFigures {
        summary: summary(name),
        usage: Some(Default::default()),
        vcpus: (0..vcpus).map(vcpu).collect(),
        devices: (0..devices).map(device).collect(),
        answered: true,
    }
}

fn chosen(of: usize, upto: Vec<usize>) -> Chosen {
    Chosen {
        views: Vec::new(),
        of,
        more: false,
        upto,
    }
}

/// The page as a client has it.
fn sent(chosen: Chosen, figures: Vec<DomainFigures>) -> FiguresPage {
    let reply = ToClient::Reply {
        id: CallId(u64::MAX),
        result: Ok(page(chosen, figures.into_iter())),
    };
    match codec::decode(&codec::encode(&reply).unwrap()).unwrap() {
        ToClient::Reply {
            result: Ok(AnswerBody::DomainFiguresList(page)),
            ..
        } => page,
        other => panic!("{other:?}"),
    }
}

#[test]
fn as_many_figures_as_fit_are_a_page_and_whoever_named_them_hears_how_far_it_goes() {
    let many = (0..200).map(|number| figures(&format!("d{number:03}"), 4, 6, 40));
    // Every third of those named does not exist.
    let upto = (0..200).map(|index| index * 3 / 2 + 1).collect::<Vec<_>>();
    let page = sent(chosen(300, upto.clone()), many.collect());
    assert!(page.more);
    let told = page.domains.len();
    assert!((10..200).contains(&told), "{told}");
    assert_eq!(page.of, u32::try_from(upto[told - 1]).unwrap());
    let few = sent(
        chosen(4, vec![2, 3]),
        vec![figures("a", 1, 1, 1), figures("b", 1, 1, 1)],
    );
    assert_eq!((few.domains.len(), few.of, few.more), (2, 4, false));
}

#[test]
fn nobody_is_looked_at_behind_the_first_that_does_not_fit() {
    let mut read = 0;
    let all = (0..MAX_PAGE).map(|number| {
        read += 1;
        figures(&format!("d{number:03}"), 64, 6, 40)
    });
    let AnswerBody::DomainFiguresList(page) = page(chosen(0, vec![0; MAX_PAGE]), all) else {
        panic!("another answer");
    };
    assert!(page.more && page.domains.len() < 20);
    assert_eq!(read, page.domains.len() + 1);
}

#[test]
fn those_that_will_not_fit_are_not_asked_of_and_whoever_named_them_hears_it() {
    let long = |number: usize| {
        let view = view(number as u128);
        let mut view = Arc::unwrap_or_clone(view);
        view.details.summary.title = Some("t".repeat(1000));
        Arc::new(view)
    };
    let views: Vec<_> = (0..200).map(long).collect();
    let upto = (0..200).map(|index| index * 3 / 2 + 1).collect::<Vec<_>>();
    let mut named = Chosen {
        views,
        ..chosen(300, upto.clone())
    };
    let groups = FigureGroups::default();
    named.fit(groups);
    let told = named.views.len();
    assert!((10..100).contains(&told), "{told}");
    assert_eq!((named.of, named.more), (upto[told - 1], true));
    // Which is what fits.
    let read: Vec<_> = named.views.iter().map(|view| read(view, groups)).collect();
    assert_eq!(sent(named, read).domains.len(), told);
    let mut few = Chosen {
        views: vec![long(1), long(2)],
        ..chosen(4, vec![2, 3])
    };
    few.fit(groups);
    assert_eq!((few.views.len(), few.of, few.more), (2, 4, false));
}

#[test]
fn a_whole_page_of_domains_that_are_off_fits() {
    let off = |number| DomainFigures {
        usage: None,
        ..figures(&format!("d{number:03}"), 0, 0, 0)
    };
    let mut all: Vec<_> = (0..MAX_PAGE).map(off).collect();
    all.iter_mut().for_each(|one| one.summary.title = None);
    let page = sent(chosen(0, vec![0; MAX_PAGE]), all);
    assert_eq!((page.domains.len(), page.more), (MAX_PAGE, false));
}

#[test]
fn one_domain_always_has_its_page() {
    let page = sent(chosen(1, vec![1]), vec![figures("a", 1024, 0, 0)]);
    assert_eq!(page.domains[0].vcpus.len(), 1024);
    let page = sent(chosen(1, vec![1]), vec![figures("a", 64, 60, 4000)]);
    assert_eq!(
        (page.domains[0].vcpus.len(), page.domains[0].devices.len()),
        (64, 60)
    );
    assert_eq!(
        page.domains[0].devices[0].host, None,
        "which its definition says"
    );
    let page = sent(chosen(1, vec![1]), vec![figures("a", 1024, 60, 4000)]);
    assert_eq!(
        (page.domains[0].vcpus.len(), page.domains[0].devices.len()),
        (0, 60)
    );
}

fn view(number: u128) -> Arc<View> {
    let mut summary = summary("web");
    summary.uuid = DomainUuid(Uuid::from_u128(number));
    Arc::new(View {
        details: DomainDetails {
            summary,
            started_ms: None,
            worker: None,
            resets: 0,
            last_failure: None,
            redefined: false,
            agent_timeout: None,
        },
        live: None,
        record: None,
        instance: None,
        taps: Vec::new(),
    })
}

#[test]
fn a_domain_that_is_named_twice_is_told_of_once() {
    // By its name, and by its UUID; the third of those named does not exist.
    let named = [(view(1), 1), (view(1), 2), (view(2), 4), (view(1), 5)];
    let (views, upto) = each_once(named.into_iter());
    let uuids: Vec<u128> = views
        .iter()
        .map(|view| view.details.summary.uuid.0.as_u128())
        .collect();
    assert_eq!((uuids, upto), (vec![1, 2], vec![1, 4]));
}
