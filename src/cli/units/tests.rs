use super::*;

#[track_caller]
fn reads<T: FromStr<Err = UnitError> + fmt::Debug + PartialEq>(text: &str, value: T) {
    assert_eq!(text.parse(), Ok(value), "{text}");
}

#[track_caller]
fn refuses<T: FromStr<Err = UnitError> + fmt::Debug>(text: &str, expected: &str) {
    let said = text.parse::<T>().unwrap_err().to_string();
    assert!(
        said.contains(expected),
        "{text}: {said:?} does not say {expected:?}"
    );
    assert!(said.contains("write for example"), "{text}: {said}");
}

#[test]
fn counts() {
    reads("0", Count(0));
    reads("500", Count(500));
    reads("10k", Count(10_000));
    reads("10K", Count(10_000));
    reads("1M", Count(1_000_000));
    reads("1.5k", Count(1_500));
    reads("1.50k", Count(1_500));
    reads("2.0", Count(2));
    reads("0.001k", Count(1));
    reads("1G", Count(1_000_000_000));
    reads("18446744073709551615", Count(u64::MAX));
    reads("100,000", Count(100_000));
    reads("1,000,000", Count(1_000_000));
    reads("100_000", Count(100_000));
    reads("1,500.0", Count(1_500));
    reads("1e6", Count(1_000_000));
    reads("1.5E+3", Count(1_500));
    reads("2e-3k", Count(2));
    reads("0e99", Count(0));
}

#[cfg(feature = "bench")]
#[test]
fn rates_may_be_fractions() {
    reads("0.5", Rate(0.5));
    reads("0.125", Rate(0.125));
    reads("500", Rate(500.0));
    reads("10k", Rate(10_000.0));
    reads("1.5k/s", Rate(1_500.0));
    reads("100,000", Rate(100_000.0));
    reads("1e6", Rate(1e6));
    refuses::<Rate>("1.500", "its point could group digits");
    refuses::<Rate>("1,5", "groups of three digits");
    refuses::<Rate>("-0.5", "it is negative");
    refuses::<Rate>("1e400", "it is too large");
    refuses::<Rate>("nan", "it is no number");
    refuses::<Rate>("5/m", "'/m' is no unit");
    assert_eq!(Rate(0.5).to_string(), "0.5");
    assert_eq!(Rate(50_000.0).to_string(), "50k");
    let said = [0.0625, 0.5, 1.0, 12.34, 99.9, 100.4, 50_000.0].map(grouped_rate);
    assert_eq!(
        said,
        ["0.062", "0.5", "1", "12.34", "99.9", "100", "50,000"]
    );
}

#[test]
fn shares() {
    reads("50%", Percent(50.0));
    reads("0.5%", Percent(0.5));
    reads("50", Percent(50.0));
    reads("0", Percent(0.0));
    refuses::<Percent>("0.5", "it could be 0.5% or 50%");
    refuses::<Percent>("1", "it could be 1% or 100%");
    refuses::<Percent>("half", "it is no number");
    refuses::<Percent>("5k", "'k' is no unit");
    refuses::<Percent>("-5%", "it is negative");
    refuses::<Percent>("%", "it is no number");
    assert_eq!(Percent(12.5).to_string(), "12.5%");
}

#[test]
fn bytes() {
    reads("0", Bytes(0));
    reads("4096", Bytes(4096));
    reads("7B", Bytes(7));
    reads("64KiB", Bytes(65_536));
    reads("64k", Bytes(65_536));
    reads("64K", Bytes(65_536));
    reads("1MB", Bytes(1_000_000));
    reads("1kB", Bytes(1_000));
    reads("1M", Bytes(1 << 20));
    reads("1.5KiB", Bytes(1_536));
    reads("2GiB", Bytes(2 << 30));
}

#[test]
fn times() {
    reads("0", Time(Duration::ZERO));
    reads("5s", Time(Duration::from_secs(5)));
    reads("250ms", Time(Duration::from_millis(250)));
    reads("10us", Time(Duration::from_micros(10)));
    reads("10µs", Time(Duration::from_micros(10)));
    reads("1m30s", Time(Duration::from_secs(90)));
    reads("1min", Time(Duration::from_secs(60)));
    reads("2h", Time(Duration::from_secs(7_200)));
    reads("1d2h", Time(Duration::from_secs(26 * 3_600)));
    reads("1.5s", Time(Duration::from_millis(1_500)));
}

#[test]
fn what_is_no_value_is_refused_with_an_example() {
    refuses::<Count>("", "it is empty");
    refuses::<Count>("-1", "it is negative");
    refuses::<Count>("k", "it is no number");
    refuses::<Count>("ten", "it is no number");
    refuses::<Count>("+5", "it is no number");
    refuses::<Count>(" 5", "it is no number");
    refuses::<Count>("5 k", "' k' is no unit");
    refuses::<Count>("10x", "'x' is no unit");
    refuses::<Count>("10KiB", "'KiB' is no unit");
    refuses::<Count>("10k5", "'k5' is no unit");
    refuses::<Count>("1\u{1b}", r"'\u{1b}' is no unit");
    refuses::<Count>("1.2345k", "does not come out even");
    refuses::<Count>("0.5", "does not come out even");
    refuses::<Count>("0.00000000000000000001G", "does not come out even");
    refuses::<Count>("1.", "it is no number");
    refuses::<Count>(".5k", "it is no number");
    refuses::<Count>("1..5k", "it is no number");
    refuses::<Count>("1.2.3k", "'.3k' is no unit");
    refuses::<Count>("1,5", "groups of three digits");
    refuses::<Count>("1,50,000", "groups of three digits");
    refuses::<Count>("1,500_000", "groups of three digits");
    refuses::<Count>("0,500", "groups of three digits");
    refuses::<Count>(",500", "groups of three digits");
    refuses::<Count>("500,", "groups of three digits");
    refuses::<Count>("100.000", "its point could group digits");
    refuses::<Count>("1e", "'e' is no unit");
    refuses::<Count>("1e99", "it is too large");
    refuses::<Count>("1e99999", "it is too large");
    refuses::<Count>("1e-1", "does not come out even");
    refuses::<Count>("1e-99", "does not come out even");
    refuses::<Time>("1,5s", "groups of three digits");
    refuses::<Count>("18446744073709551616", "it is too large");
    refuses::<Count>("18446744073709551615G", "it is too large");
    refuses::<Count>("99999999999999999999999999999999999999999", "too large");
    refuses::<Bytes>("1s", "'s' is no unit");
    refuses::<Bytes>("-64k", "it is negative");
    refuses::<Bytes>("18446744073709551615G", "it is too large");
    refuses::<Time>("5", "it has no unit; write for example 250ms");
    refuses::<Time>("1m30", "it has no unit");
    refuses::<Time>("5S", "'S' is no unit");
    refuses::<Time>("-5s", "it is negative");
    refuses::<Time>("1.0000000001s", "does not come out even");
    refuses::<Time>("0.0005ms", "does not come out even");
    refuses::<Time>("18446744073709551615d", "it is too large");
    refuses::<Time>(
        "18446744073709551615d18446744073709551615d",
        "it is too large",
    );
}

#[test]
fn a_word_may_stand_for_no_value_and_is_offered_where_it_may() {
    reads("off", Or::<Time, Off>::Word(Off));
    reads("5s", Or::<_, Off>::Value(Time(Duration::from_secs(5))));
    refuses::<Or<Time, Off>>("of", "or 'off'");
    refuses::<Or<Bytes, Auto>>("off", "or 'auto'");
    assert_eq!(Or::<Count, Most>::some(None).to_string(), "max");
    assert_eq!(
        Or::<Count, Most>::some(Some(Count(7))).value(),
        Some(Count(7))
    );
}

#[test]
fn values_print_as_they_are_read() {
    for text in ["0", "1", "999", "10k", "1500", "1M", "7G", "1001k"] {
        assert_eq!(text.parse::<Count>().unwrap().to_string(), text);
    }
    for text in ["0", "1", "63KiB", "1000", "1MiB", "3GiB", "1025KiB"] {
        assert_eq!(text.parse::<Bytes>().unwrap().to_string(), text);
    }
    for text in ["0", "5s", "250ms", "1m30s", "2h", "1s500ms", "20d", "3us"] {
        assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
    }
}

#[test]
fn numbers_in_sentences() {
    assert_eq!(grouped(0), "0");
    assert_eq!(grouped(999), "999");
    assert_eq!(grouped(19_968), "19,968");
    assert_eq!(grouped(1_000_000), "1,000,000");
    assert_eq!(plural(1, "connection"), "1 connection");
    assert_eq!(plural(1_200, "byte"), "1,200 bytes");
}
