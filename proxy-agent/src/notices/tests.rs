//! What is told of Services, and how much of it.

use super::*;
use crate::model::{Warning, not_routable};

fn name(number: usize) -> ObjectName {
    ObjectName::new("ns", format!("s{number}"))
}

fn notice(reason: Reason) -> Vec<Notice> {
    vec![Notice::new(reason, "why")]
}

#[test]
fn what_one_says_takes_the_place_of_what_it_said() {
    let notices = Notices::default();
    let changes = notices.changes();
    let at = "0.0.0.0:1".parse().unwrap();
    notices.set(&name(1), Topic::Model, notice(Reason::AddressTaken));
    notices.set(
        &name(1),
        Topic::Check(at),
        notice(Reason::HealthCheckPortTaken),
    );
    let reasons = || {
        let all = notices.all();
        let of_service = all.get(&name(1)).into_iter().flatten();
        of_service.map(|one| one.reason).collect::<Vec<_>>()
    };
    assert_eq!(
        reasons(),
        [Reason::AddressTaken, Reason::HealthCheckPortTaken]
    );
    assert_eq!(notices.counts()[&Reason::AddressTaken], 1);
    assert!(changes.has_changed().unwrap());
    notices.set(&name(1), Topic::Model, notice(Reason::EndpointRefused));
    assert_eq!(
        reasons(),
        [Reason::EndpointRefused, Reason::HealthCheckPortTaken]
    );
    notices.set(&name(1), Topic::Model, Vec::new());
    notices.set(&name(1), Topic::Check(at), Vec::new());
    assert!(notices.all().is_empty());
    assert_eq!(notices.counts()[&Reason::AddressTaken], 0);
}

#[test]
fn what_is_said_again_is_no_change() {
    let notices = Notices::default();
    notices.set(&name(1), Topic::Room, notice(Reason::NoRoom));
    let mut changes = notices.changes();
    changes.borrow_and_update();
    notices.set(&name(1), Topic::Room, notice(Reason::NoRoom));
    notices.set(&name(2), Topic::Room, Vec::new());
    assert!(!changes.has_changed().unwrap());
}

#[test]
fn the_room_of_notices_is_bounded_in_number_and_in_size() {
    let notices = Notices::default();
    for number in 0..SERVICES + 10 {
        notices.set(&name(number), Topic::Model, notice(Reason::AddressTaken));
    }
    assert_eq!(notices.all().len(), SERVICES);
    let long = Notice::new(Reason::NoRoom, "\u{e9}".repeat(MESSAGE));
    assert!(long.message.len() <= MESSAGE && long.message.ends_with("\u{e9}..."));
}

#[test]
fn many_warnings_of_one_reason_are_one_notice() {
    let refused = |last: u8| {
        let addr = std::net::IpAddr::from([127, 0, 0, last]);
        Warning::EndpointRefused {
            slice: ObjectName::new("ns", "s1-a"),
            addr,
            reason: not_routable(addr).unwrap(),
        }
    };
    let warnings: Vec<_> = (1..=200).map(refused).collect();
    let [notice] = &of_warnings(&warnings)[..] else {
        panic!("not one");
    };
    assert_eq!(notice.reason, Reason::EndpointRefused);
    let first = "endpoint 127.0.0.1 of EndpointSlice s1-a is not used: a loopback address; ";
    assert!(notice.message.starts_with(first), "{}", notice.message);
    assert!(
        notice.message.ends_with("; and 195 more"),
        "{}",
        notice.message
    );
}

#[test]
fn a_file_has_what_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let names = dir.path().join("names.json");
    assert_eq!(read(&names).unwrap(), Told::default());
    let notices = Notices::default();
    notices.set(&name(2), Topic::Model, notice(Reason::AddressTaken));
    let shape = Shape {
        r#type: "LoadBalancer".to_owned(),
        ports: vec!["80/TCP".to_owned()],
    };
    notices.set_shape(&name(1), Some(shape));
    file::write(&notices.told(), &names).unwrap();
    let told = read(&names).unwrap();
    assert_eq!(told, notices.told());
    let names_told: Vec<_> = told.services.iter().map(|one| &*one.name).collect();
    assert_eq!(names_told, ["s1", "s2"]);
    remove(&names).unwrap();
    assert_eq!(read(&names).unwrap(), Told::default());
}
