//! Tests of the comparison of speeds.

use super::*;
use crate::policy::{
    Candidate, MemberIndex, Route,
    outlier::speed::{NOTICEABLE, SLOW, VERY_SLOW, WEIGHT},
};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A typical time of requests for a model that typically takes one second.
fn typical_time(time: u64) -> TypicalTime {
    typical_time_of(time, 1_000)
}

/// A typical time of requests for a model that typically takes `model` milliseconds.
fn typical_time_of(time: u64, model: u64) -> TypicalTime {
    let [time, model] = [time, model].map(|time| LogTime::of(millis(time)));
    let relative = i64::from(time.bits()) - i64::from(model.bits());
    TypicalTime { time, relative }
}

fn known(times: &[u64]) -> Vec<Option<TypicalTime>> {
    times.iter().map(|time| Some(typical_time(*time))).collect()
}

fn pack(time: Duration) -> u64 {
    TimeSum::pack(LogTime::of(time))
}

fn sum(times: &[Duration]) -> TimeSums {
    let packed = times.iter().map(|time| pack(*time)).sum();
    [TimeSum::unpack(packed, 0), TimeSum::default()]
}

/// The typical time after `times`, one per second from the tenth second on.
fn typical(times: &[u64]) -> Option<Duration> {
    let mut record = OutlierRecord::default();
    let mut recent = RecentOutcomes::default();
    for (second, time) in (10..).zip(times) {
        recent = record.sample(at(second), OutcomeCounts::default(), sum(&[millis(*time)]));
    }
    recent.first_output[0].map(|typical| typical.time.time())
}

#[test]
fn an_upstream_is_slow_from_twice_and_very_slow_from_four_times_the_others() {
    use Speed::{Normal, Slow, VerySlow};
    assert_eq!(compare_all(&known(&[1_000, 1_100, 1_900])), [Normal, Normal, Normal]);
    assert_eq!(compare_all(&known(&[1_000, 1_000, 2_400])), [Normal, Normal, Slow]);
    assert_eq!(compare_all(&known(&[1_000, 3_900])), [Normal, Slow]);
    assert_eq!(
        compare_all(&known(&[5_000, 1_000, 1_000, 1_000])),
        [VerySlow, Normal, Normal, Normal]
    );
    // Callers do not notice the difference.
    assert_eq!(compare_all(&known(&[50, 50, 500])), [Normal, Normal, Normal]);
    // A fast upstream does not make the others slow.
    assert_eq!(
        compare_all(&known(&[100, 1_000, 1_000, 1_000])),
        [Normal, Normal, Normal, Normal]
    );
    // An upstream alone, or beside unknown ones, is not compared.
    assert_eq!(compare_all(&known(&[60_000])), [Normal]);
    assert_eq!(compare_all(&[Some(typical_time(60_000)), None]), [Normal, Normal]);
    assert_eq!(compare_all(&[]), []);
}

#[test]
fn an_upstream_is_not_slow_because_of_its_models() {
    use Speed::{Normal, VerySlow};
    // Only the first upstream is asked for a model that takes twenty times as long.
    let (large, small) = (typical_time_of(20_000, 20_000), typical_time_of(1_000, 1_000));
    assert_eq!(compare_all(&[large, small, small].map(Some)), [Normal; 3]);
    // It takes five times as long for its model as the second upstream.
    let (slow, fast) = (typical_time_of(50_000, 20_000), typical_time_of(10_000, 20_000));
    assert_eq!(compare_all(&[slow, fast].map(Some)), [VerySlow, Normal]);
    // A large model does not hide that an upstream is slow with a small one.
    let slow = typical_time_of(6_000, 1_000);
    assert_eq!(compare_all(&[large, slow, small].map(Some)), [Normal, VerySlow, Normal]);
}

/// Times of a small and a large model at three upstreams: the last one has all sessions of the large model, or is slow.
#[test]
fn records_of_several_models_compare_like_with_like() {
    for (times_of_last, expected) in [
        ([(1, 20_000), (1, 20_000)], Speed::Normal),
        ([(0, 6_000), (1, 120_000)], Speed::VerySlow),
    ] {
        let mut models = [ModelTime::default(); 2];
        let mut records = [0; 3].map(|_| OutlierRecord::default());
        let mut recent = [RecentOutcomes::default(); 3];
        for second in 0..30 {
            let of_others = [[(0, 1_000), (1, 20_000)], [(0, 1_000), (0, 1_000)]];
            for ((record, recent), times) in records
                .iter_mut()
                .zip(&mut recent)
                .zip(of_others.into_iter().chain([times_of_last]))
            {
                let (mut packed, mut relative) = (0, 0);
                for (model, time) in times {
                    let time = LogTime::of(millis(time));
                    let (typical, ratio) = models[model].record(time);
                    models[model] = typical;
                    packed += TimeSum::pack(time);
                    relative += ratio;
                }
                let sums = [TimeSum::unpack(packed, relative), TimeSum::default()];
                *recent = record.sample(at(second + 1), OutcomeCounts::default(), sums);
            }
        }
        assert_eq!(speeds(&recent), [Speed::Normal, Speed::Normal, expected]);
    }
}

#[test]
fn streams_and_whole_responses_are_compared_separately() {
    let upstream = |stream: u64, whole: u64| RecentOutcomes {
        first_output: [stream, whole].map(|time| (time > 0).then(|| typical_time(time))),
        ..RecentOutcomes::default()
    };
    let of = |pool: &[RecentOutcomes]| speeds(pool);
    assert_eq!(of(&[upstream(1_000, 0), upstream(0, 60_000)]), [Speed::Normal; 2]);
    assert_eq!(
        of(&[upstream(1_000, 60_000), upstream(1_100, 20_000)]),
        [Speed::Slow, Speed::Normal]
    );
    assert_eq!(
        of(&[upstream(9_000, 60_000), upstream(1_100, 20_000)]),
        [Speed::VerySlow, Speed::Normal]
    );
    assert_eq!(of(&[]), []);
}

#[test]
fn the_typical_time_needs_ten_samples_and_is_forgotten_after_a_minute() {
    assert_eq!(typical(&[1_000; 9]), None);
    let ten = typical(&[1_000; 10]).expect("there are ten samples");
    assert!((ten.as_secs_f64() - 1.0).abs() < 0.01, "{ten:?}");
    let mut record = OutlierRecord::default();
    let mut sample = |second, times| record.sample(at(second), OutcomeCounts::default(), times).first_output[0];
    assert!(sample(10, sum(&[millis(900); 10])).is_some());
    assert!(sample(70, TimeSums::default()).is_some());
    assert!(sample(71, TimeSums::default()).is_none());
    assert!(sample(72, sum(&[millis(100); 9])).is_none());
    let anew = sample(73, sum(&[millis(100)]))
        .expect("there are ten new samples")
        .time
        .time();
    assert!(
        (anew.as_secs_f64() - 0.1).abs() < 0.01,
        "the old times are forgotten: {anew:?}"
    );
}

#[test]
fn a_single_slow_request_does_not_make_an_upstream_slow() {
    let mut times = [1_000; 12];
    times[11] = 60_000;
    let typical = typical(&times).expect("there are enough samples");
    assert!(typical < millis(2_000), "{typical:?}");
}

#[test]
fn a_lasting_change_shows_within_twenty_requests() {
    let times: Vec<u64> = [1_000; 30].into_iter().chain([8_000; 15]).collect();
    let typical = typical(&times).expect("there are enough samples");
    assert!(typical > millis(4_000), "{typical:?}");
}

fn candidate(index: usize, route: Route) -> Candidate {
    Candidate {
        index: MemberIndex::new(index),
        route,
    }
}

/// The order of four upstreams with `speeds` for a request whose own upstream is the first one.
fn order(route: Route, ready: [bool; 4], speeds: [Speed; 4]) -> [usize; 4] {
    let mut candidates = [route, Route::Moved, Route::Moved, Route::Moved];
    let mut candidates: Vec<Candidate> = candidates
        .iter_mut()
        .enumerate()
        .map(|(index, route)| candidate(index, *route))
        .collect();
    order_by_speed(
        &mut candidates,
        |index| ready[index.as_usize()],
        |index| speeds[index.as_usize()],
    );
    let order: Vec<usize> = candidates.iter().map(|candidate| candidate.index.as_usize()).collect();
    order.try_into().expect("no candidate is lost")
}

#[test]
fn new_sessions_avoid_slow_upstreams_and_pinned_ones_very_slow_upstreams() {
    use Speed::{Normal, Slow, VerySlow};
    const READY: [bool; 4] = [true; 4];
    for new in [Route::Home, Route::Keyless] {
        assert_eq!(order(new, READY, [Slow, Slow, Normal, Normal]), [2, 0, 3, 1]);
        assert_eq!(order(new, READY, [Normal, Slow, Normal, VerySlow]), [0, 2, 1, 3]);
        assert_eq!(order(new, READY, [VerySlow, VerySlow, Slow, VerySlow]), [2, 0, 1, 3]);
    }
    assert_eq!(order(Route::Pin, READY, [Slow, Normal, Normal, Normal]), [0, 1, 2, 3]);
    assert_eq!(
        order(Route::Pin, READY, [VerySlow, Normal, Normal, Normal]),
        [1, 0, 2, 3]
    );
    assert_eq!(
        order(Route::Owner, READY, [VerySlow, Normal, Normal, Normal]),
        [0, 1, 2, 3]
    );
    // No faster upstream is ready.
    let only_slow = [true, true, false, false];
    assert_eq!(
        order(Route::Home, only_slow, [Slow, Slow, Normal, Normal]),
        [0, 2, 3, 1]
    );
    assert_eq!(
        order(Route::Pin, [true, false, false, true], [VerySlow, Normal, Normal, Slow]),
        [3, 0, 1, 2]
    );
    order_by_speed(&mut [], |_| true, |_| Normal);
}

fn any_speed() -> impl Strategy<Value = Speed> {
    prop_oneof![Just(Speed::Normal), Just(Speed::Slow), Just(Speed::VerySlow)]
}

proptest! {
    #[test]
    fn the_logarithm_is_close_and_keeps_the_order(micros in 1u64.., more: u64) {
        let time = Duration::from_micros(micros);
        let back = LogTime::of(time).time();
        prop_assert!(back <= time && time.as_secs_f64() <= back.as_secs_f64() * 1.002 + 1e-9);
        let exact = (micros as f64).log2();
        let log = pack(time) & 0xff_ffff;
        prop_assert!((log as f64 / 1024.0 - exact).abs() < 0.09);
        prop_assert!(LogTime::of(time) <= LogTime::of(Duration::from_micros(micros.saturating_add(more))));
    }

    #[test]
    fn a_batch_of_equal_times_counts_like_one_after_the_other(
        batches in prop::collection::vec((1u64..100_000, 1usize..30), 1..20),
    ) {
        // The oracle: the average over one time after the other, with equal weights at first.
        let (mut average, mut samples) = (0.0, 0.0);
        let mut record = OutlierRecord::default();
        let mut recent = RecentOutcomes::default();
        for (second, (time, count)) in (10..).zip(batches) {
            recent = record.sample(at(second), OutcomeCounts::default(), sum(&vec![millis(time); count]));
            let log = (pack(millis(time)) & 0xff_ffff) as f64;
            for _ in 0..count {
                samples += 1.0;
                average += (log - average) * WEIGHT.max(1.0 / samples);
            }
        }
        if samples >= f64::from(SPEED_SAMPLES_MIN) {
            let typical = recent.first_output[0].expect("there are enough samples").time.time().as_secs_f64();
            let exact = 2f64.powf(average / 1024.0) / 1e6;
            // The batch that reaches the tenth sample is weighted a little differently, and logarithms are rounded.
            prop_assert!(typical / exact > 0.5 && typical / exact < 2.0, "{typical} {exact}");
        } else {
            prop_assert_eq!(recent.first_output[0], None);
        }
    }

    #[test]
    fn marks_follow_the_rule(times in prop::collection::vec(prop::option::of(1u64..100_000), 0..7)) {
        let pool: Vec<Option<TypicalTime>> = times.iter().map(|time| time.map(typical_time)).collect();
        let marks = compare_all(&pool);
        for (index, mark) in marks.iter().enumerate() {
            let mut others: Vec<f64> = (0..pool.len())
                .filter(|other| *other != index)
                .filter_map(|other| Some(pool[other]?.time.time().as_secs_f64()))
                .collect();
            others.sort_by(f64::total_cmp);
            let (Some(own), false) = (pool[index], others.is_empty()) else {
                prop_assert_eq!(*mark, Speed::Normal);
                continue;
            };
            let own = own.time.time().as_secs_f64();
            // The median lies between these two, and is one of them if they are the same.
            let (low, high) = (others[(others.len() - 1) / 2], others[others.len() / 2]);
            let is_over = |factor: f64, median: f64| own > factor * median && own - median > NOTICEABLE.as_secs_f64();
            if *mark >= Speed::Slow {
                prop_assert!(is_over(SLOW, low));
            }
            if *mark == Speed::VerySlow {
                prop_assert!(is_over(VERY_SLOW, low));
            }
            if is_over(SLOW, high) {
                prop_assert!(*mark >= Speed::Slow);
            }
            if is_over(VERY_SLOW, high) {
                prop_assert_eq!(*mark, Speed::VerySlow);
            }
        }
    }

    #[test]
    fn reordering_loses_no_candidate_and_sends_to_none_that_is_slower_than_needed(
        route in prop_oneof![Just(Route::Home), Just(Route::Pin), Just(Route::Owner), Just(Route::Keyless)],
        ready: [bool; 4],
        speeds in [any_speed(), any_speed(), any_speed(), any_speed()],
    ) {
        let order = order(route, ready, speeds);
        let mut all = order;
        all.sort_unstable();
        prop_assert_eq!(all, [0, 1, 2, 3]);
        // The first one is the own upstream, or it is ready and faster, and no ready one is faster still.
        let is_best = |first: usize| {
            ready[first] && speeds[first] < speeds[0] && (0..4).all(|other| !ready[other] || speeds[other] >= speeds[first])
        };
        prop_assert!(order[0] == 0 || is_best(order[0]));
        prop_assert!(route != Route::Owner || order[0] == 0);
        prop_assert!(route != Route::Pin || speeds[0] == Speed::VerySlow || order[0] == 0);
    }
}
