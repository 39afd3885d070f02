//! Tests of the counters and of the equations that hold between them.

use super::*;

#[test]
fn reasons_are_listed_in_the_order_of_their_discriminants() {
    let closed = CloseReason::ALL.iter().map(|&reason| reason as usize);
    assert!(closed.eq(0..CloseReason::ALL.len()));
    let rejected = RejectReason::ALL.iter().map(|&why| why as usize);
    assert!(rejected.eq(0..RejectReason::ALL.len()));
    let dropped = DropReason::ALL.iter().map(|&why| why as usize);
    assert!(dropped.eq(0..DropReason::ALL.len()));
}

#[test]
fn the_invariants_hold_at_every_step_of_a_connection() {
    let mut stats = Stats::default();
    stats.open();
    assert_eq!(stats.check_invariants(), Ok(()));
    stats.bytes_in += 10;
    assert!(stats.check_invariants().unwrap_err().contains("bytes in"));
    stats.bytes_out += 4;
    stats.store_unsent(6);
    assert_eq!(stats.check_invariants(), Ok(()));
    stats.flush_unsent(1);
    stats.close(CloseReason::Reset, 5);
    assert_eq!(stats.check_invariants(), Ok(()));
    assert_eq!(
        (stats.discarded, stats.unsent_bytes, stats.unsent_bytes_peak),
        (5, 0, 6)
    );
}

#[test]
fn merged_counters_add_up() {
    let mut one = Stats::default();
    one.open();
    one.close(CloseReason::Idle, 0);
    one.accept_error(&io::Error::from_raw_os_error(libc::EMFILE));
    let mut sum = one.clone();
    sum.merge(&one);
    assert_eq!(
        (
            sum.accepted,
            sum.closed(CloseReason::Idle),
            sum.accept_errors[&24]
        ),
        (2, 2, 2)
    );
    assert_eq!(sum.check_invariants(), Ok(()));
    assert!(
        sum.to_string()
            .contains("closed{idle}=2 accept_errors{24}=2"),
        "{sum}"
    );
}
