use std::time::Duration;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::maglev::{Permutation, populate};
use super::*;
use crate::ids::Address;

struct Server {
    usable: bool,
    weight: f64,
    in_flight: u32,
    latency_s: f64,
}

impl Server {
    fn idle() -> Self {
        Self { usable: true, weight: 1.0, in_flight: 0, latency_s: 0.0 }
    }

    fn busy(in_flight: u32) -> Self {
        Self { in_flight, ..Self::idle() }
    }
}

impl Candidate for Server {
    fn is_usable(&self) -> bool {
        self.usable
    }
    fn weight(&self, _: Duration) -> f64 {
        self.weight
    }
    fn in_flight(&self) -> u32 {
        self.in_flight
    }
    fn latency_s(&self, _: Duration) -> f64 {
        self.latency_s
    }
}

const NOW: Duration = Duration::ZERO;

/// Folds a sequence of owners into one number, as the scripts that made the vectors did.
fn fingerprint(owners: impl IntoIterator<Item = usize>) -> usize {
    owners.into_iter().fold(0, |print, owner| (print * 31 + owner) % 1_000_000_007)
}

fn numbered_keys(count: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|number| format!("key-{number}").into_bytes())
}

/// Some server's address: of another slot another.
fn some_address(slot: usize, dice: &mut Dice) -> Address {
    Address::tcp("127.0.0.1", u16::try_from(1024 + 20_000 * slot + dice.below(20_000)).unwrap())
}

/// Pearson's statistic of counts that should all be the same.
fn chi_square(counts: &[usize]) -> f64 {
    let expected = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum()
}

mod by_load {
    use super::*;

    #[test]
    fn the_least_loaded_of_those_that_may_is_picked() {
        let mut dice = Dice::seeded(1);
        let mut servers = [Server::busy(3), Server::busy(1), Server::busy(0), Server::busy(2)];
        servers[2].usable = false;
        assert_eq!(least_loaded(&servers, NOW, &mut dice), Some(1));
        servers[0].weight = 6.0;
        assert_eq!(least_loaded(&servers, NOW, &mut dice), Some(0), "three of six is less than one of one");
        servers[0].weight = 0.0;
        assert_eq!(least_loaded(&servers, NOW, &mut dice), Some(1), "weight 0 gets nothing");
    }

    #[test]
    fn nobody_is_picked_when_nobody_may() {
        let mut dice = Dice::seeded(1);
        let down = [Server { usable: false, ..Server::idle() }, Server { weight: 0.0, ..Server::idle() }];
        for servers in [&down[..], &[]] {
            assert_eq!(least_loaded(servers, NOW, &mut dice), None);
            assert_eq!(p2c(servers, NOW, &mut dice), None);
            assert_eq!(peak_ewma(servers, NOW, &mut dice), None);
            assert_eq!(WeightedRoundRobin::new(servers.len()).pick(servers, NOW), None);
        }
    }

    /// 70,000 picks among seven equals. The statistic has six degrees of freedom; above 22.46
    /// it would be by chance once in a thousand, and the dice are always the same.
    #[test]
    fn ties_are_settled_uniformly() {
        let mut servers: Vec<_> = (0..9).map(|_| Server::idle()).collect();
        servers[0].in_flight = 1;
        servers[5].usable = false;
        for pick in [least_loaded::<Server>, p2c::<Server>] {
            let mut dice = Dice::seeded(42);
            let mut counts = [0; 9];
            for _ in 0..70_000 {
                counts[pick(&servers, NOW, &mut dice).unwrap()] += 1;
            }
            assert_eq!(counts[5], 0);
            let tied: Vec<_> = [1, 2, 3, 4, 6, 7, 8].map(|index| counts[index]).into();
            assert!(chi_square(&tied) < 22.46, "{counts:?}");
        }
    }

    #[test]
    fn ties_of_unequals_are_settled_by_weight() {
        let mut dice = Dice::seeded(42);
        let servers = [1.0, 2.0, 0.0, 5.0].map(|weight| Server { weight, ..Server::idle() });
        let mut counts = [0; 4];
        for _ in 0..80_000 {
            counts[least_loaded(&servers, NOW, &mut dice).unwrap()] += 1;
        }
        let shares = counts.map(|count| (f64::from(count) / 10_000.0).round());
        assert_eq!(shares, [1.0, 2.0, 0.0, 5.0], "{counts:?}");
        let heavy = (0..10_000).filter(|_| p2c(&servers[1..], NOW, &mut dice) == Some(2)).count();
        assert!((5_800..7_000).contains(&heavy), "more than half, for its weight: {heavy}");
    }

    #[test]
    fn two_choices_prefer_the_idle_and_find_the_only_one_left() {
        let mut dice = Dice::seeded(3);
        let servers = [Server::busy(9), Server::idle()];
        let idle = (0..1_000).filter(|_| p2c(&servers, NOW, &mut dice) == Some(1)).count();
        assert!((700..800).contains(&idle), "three of four pairs hold the idle one: {idle}");
        let mut many: Vec<_> = (0..200).map(|_| Server { usable: false, ..Server::idle() }).collect();
        many[123].usable = true;
        for _ in 0..100 {
            assert_eq!(p2c(&many, NOW, &mut dice), Some(123));
        }
    }

    #[test]
    fn peak_ewma_weighs_latency_against_the_queue() {
        let mut dice = Dice::seeded(1);
        let fast_and_busy = Server { latency_s: 0.001, ..Server::busy(20) };
        let slow_and_idle = Server { latency_s: 0.010, ..Server::idle() };
        assert_eq!(peak_ewma(&[fast_and_busy, slow_and_idle], NOW, &mut dice), Some(1));
    }

    #[test]
    fn peak_ewma_gives_a_newcomer_its_part_and_no_more() {
        let mut dice = Dice::seeded(1);
        let mut shares = |mut servers: Vec<Server>| {
            let mut counts = vec![0; servers.len()];
            // Nobody answers meanwhile.
            for _ in 0..300 {
                let index = peak_ewma(&servers, NOW, &mut dice).unwrap();
                servers[index].in_flight += 1;
                counts[index] += 1;
            }
            counts
        };
        let known = || Server { latency_s: 0.010, ..Server::idle() };
        let new = shares(vec![known(), known(), Server::idle()]);
        assert!(new.iter().all(|count| (95..=105).contains(count)), "{new:?}");
        let alone = shares(vec![Server::idle(), Server::idle(), Server::idle()]);
        assert!(alone.iter().all(|count| *count == 100), "{alone:?}");
        let forgotten = shares(vec![known(), Server { latency_s: 1e-30, ..Server::idle() }]);
        assert!((10..=60).contains(&forgotten[0]), "ten to one at the most, or so: {forgotten:?}");
    }

    #[test]
    fn an_average_believes_peaks_at_once_and_forgets_them_in_ten_seconds() {
        let at = Duration::from_secs;
        let ewma = PeakEwma::default().observe(at(1), Duration::from_millis(10));
        let peak = ewma.observe(at(1), Duration::from_secs(2));
        assert_eq!(peak.at(at(1)), 2.0);
        assert!((peak.at(at(11)) - 2.0 / std::f64::consts::E).abs() < 1e-9);
        let calmer = peak.observe(at(11), Duration::from_millis(10));
        assert!((0.5..1.0).contains(&calmer.at(at(11))), "good news comes slowly: {calmer:?}");
    }

    #[test]
    fn slow_start_rises_from_a_tenth_to_all() {
        let share = |second| slow_start(Duration::from_secs(second), Duration::from_secs(60));
        assert_eq!([share(0), share(3), share(30), share(60), share(90)], [0.1, 0.1, 0.5, 1.0, 1.0]);
        assert_eq!(slow_start(Duration::ZERO, Duration::ZERO), 1.0, "no window, no slow start");
    }

    /// The sequence in nginx's commit that introduced the algorithm (52327e0627f4).
    #[test]
    fn weighted_round_robin_is_smooth() {
        let servers = [5.0, 1.0, 1.0].map(|weight| Server { weight, ..Server::idle() });
        let mut turns = WeightedRoundRobin::new(3);
        let picks: Vec<_> = (0..7).filter_map(|_| turns.pick(&servers, NOW)).collect();
        assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
    }
}

mod key_hashes {
    use super::*;

    const KEYS: [&[u8]; 4] = [b"a", b"foo", b"session:1", b"\xff\x80key"];

    /// From the authors' test vectors (draft-eastlake-fnv, appendix C).
    #[test]
    fn fnv1a_64_as_published() {
        let hashes = [&b""[..], b"a", b"foobar"].map(fnv1a_64);
        assert_eq!(hashes, [0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8]);
    }

    /// From libhashkit 1.1.4 (`libhashkit_fnv1a_64` and its kin) on x86-64.
    #[test]
    fn hashes_of_libmemcached() {
        assert_eq!(KEYS.map(fnv1a_64_low), [0x8601_ec8c, 0xfed9_d577, 0xcf22_e8b2, 0x9b09_1321]);
        assert_eq!(KEYS.map(crc32_libmemcached), [0x68b7, 0x0c73, 0x2643, 0x14ce]);
        assert_eq!(KEYS.map(md5_low), [0xb975_c10c, 0xdb18_bdac, 0xe04d_1782, 0x6c67_60d1]);
    }

    /// The check value of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms.
    #[test]
    fn crc32_as_published() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn mixing_gives_another_hash_for_every_salt() {
        assert_eq!(mix(7, 0), 7, "the first choice is the hash itself");
        let salted: std::collections::HashSet<_> = (0..1_000).map(|salt| mix(7, salt)).collect();
        assert_eq!(salted.len(), 1_000);
    }
}

mod jump_hash {
    use super::*;

    /// From the paper's figure 1 written in Python with 64-bit wrapping arithmetic.
    #[test]
    fn golden_vectors() {
        let some = [(1, 1), (42, 57), (0xdead_10cc, 1), (0xdead_10cc, 666), (256, 1024), (u64::MAX, 1000)];
        assert_eq!(some.map(|(key, slots)| jump(key, slots).unwrap()), [0, 43, 0, 361, 520, 313]);
        let owners: Vec<_> = numbered_keys(10_000).map(|key| jump(xxh3_64(&key), 11).unwrap()).collect();
        assert_eq!(owners[..10], [1, 7, 7, 0, 3, 7, 6, 10, 7, 6]);
        assert_eq!(fingerprint(owners), 449_546_337);
    }

    #[test]
    fn no_slots_have_no_owner_and_the_key_that_overflows_has_one() {
        assert_eq!(jump(1, 0), None);
        assert_eq!(jump(0x2019_97f8_6663_13ab, 5), Some(0));
    }

    #[test]
    fn growing_by_one_moves_keys_to_the_new_slot_only() {
        for slots in 1..20 {
            let moved = numbered_keys(10_000).map(|key| xxh3_64(&key)).filter(|&hash| {
                let (before, after) = (jump(hash, slots), jump(hash, slots + 1));
                assert!(before == after || after == Some(slots), "moved between old slots");
                before != after
            });
            let share = moved.count() as f64 / 10_000.0;
            assert!((share - 1.0 / (slots + 1) as f64).abs() < 0.02, "{slots} slots: {share}");
        }
    }
}

mod rings {
    use super::*;

    fn ring_of(servers: impl Iterator<Item = RingServer>) -> Ring {
        Ring::new(Dialect::Libmemcached, Function::Md5, &servers.collect::<Vec<_>>())
    }

    fn named<'a>(servers: impl IntoIterator<Item = (&'a str, u32)>) -> Ring {
        let server = |(slot, (name, weight)): (usize, (&str, u32))| RingServer {
            slot,
            label: name.to_owned(),
            weight,
        };
        ring_of(servers.into_iter().enumerate().map(server))
    }

    const LIBMEMCACHED_KEYS: [&str; 7] =
        ["a", "foo", "session:1", "session:2", "user/42", "The quick brown fox", "key-0"];

    /// From `memcached_generate_hash` of libmemcached 1.1.4 with `KETAMA_WEIGHTED` (which
    /// hashes keys with MD5): seven keys, and a fingerprint over 100,000.
    #[test]
    fn ketama_owns_what_libmemcached_says() {
        let equal = [("10.0.0.1", 11211, 1), ("10.0.0.2", 11211, 1), ("10.0.0.3", 11212, 1)];
        let weighted = [
            ("10.0.0.1", 11211, 1),
            ("10.0.0.2", 11211, 3),
            ("cache.internal", 22122, 2),
            ("10.0.0.4", 11211, 7),
        ];
        for (servers, few, print) in [
            (&equal[..], [1, 1, 0, 1, 0, 2, 1], 477_725_493),
            (&weighted[..], [3, 1, 0, 1, 0, 2, 1], 723_509_727),
        ] {
            let server = |(slot, &(host, port, weight)): (usize, &(&str, u16, u32))| RingServer {
                slot,
                label: Dialect::Libmemcached.label(&Address::tcp(host, port)),
                weight,
            };
            let ring = ring_of(servers.iter().enumerate().map(server));
            let owner = |key: &[u8]| ring.owner(md5_low(key)).unwrap();
            assert_eq!(LIBMEMCACHED_KEYS.map(|key| owner(key.as_bytes())), few);
            assert_eq!(fingerprint(numbered_keys(100_000).map(|key| owner(&key))), print);
        }
    }

    /// From nutcracker 0.5.0 (Debian), by which of four servers it asked for each of 5,007 keys.
    #[test]
    fn ketama_owns_what_twemproxy_says() {
        let long = [b'k'; 200];
        let first: [&[u8]; 7] = [b"a", b"foo", b"session:1", b"session:2", b"user/42", b"\xff\x80key", &long];
        type Hash = fn(&[u8]) -> u32;
        let cases: [(Hash, usize, usize); 4] = [
            (fnv1a_64_low, 864_547_436, 469_146_197),
            (crc32_libmemcached, 655_829_418, 655_829_418),
            (crc32, 597_659_922, 706_312_036),
            (md5_low, 502_520_577, 255_087_683),
        ];
        for (weights, weighted) in [([1; 4], false), ([1, 3, 2, 7], true)] {
            let names = ["alpha", "beta", "gamma", "delta"];
            let ring = named(names.into_iter().zip(weights));
            for (hash, equal_print, weighted_print) in cases {
                let keys = first.iter().map(|key| key.to_vec()).chain(numbered_keys(5_000));
                let print = fingerprint(keys.map(|key| ring.owner(hash(&key)).unwrap()));
                assert_eq!(print, if weighted { weighted_print } else { equal_print }, "{weights:?}");
            }
        }
    }

    /// The part of all hashes that belongs to the last of three servers, whatever ports they have.
    fn share_of_the_last(dialect: Dialect, dice: &mut Dice) -> f64 {
        const LOOKS: u32 = 1 << 12;
        let server = |slot| RingServer { slot, label: dialect.label(&some_address(slot, dice)), weight: 1 };
        let ring = Ring::new(dialect, Function::Md5, &(0..3).map(server).collect::<Vec<_>>());
        let owned = (0..LOOKS).filter(|&look| ring.owner(look * (u32::MAX / LOOKS)) == Some(2)).count();
        owned as f64 / f64::from(LOOKS)
    }

    /// With `n` points a server, a third is had with a variance of 2/9 / (3 n + 1), as points thrown by dice are
    /// spread (a beta distribution). 300 rings tell the deviation to 4 in a hundred; the bounds are four times that.
    #[test]
    fn a_ring_is_as_even_as_its_points_can_make_it() {
        const RINGS: usize = 300;
        for (dialect, points) in
            [(Dialect::Libmemcached, 160.0_f64), (Dialect::Dalli, 160.0), (Dialect::Unweighted, 100.0)]
        {
            let mut dice = Dice::seeded(7);
            let shares: Vec<f64> = (0..RINGS).map(|_| share_of_the_last(dialect, &mut dice)).collect();
            let mean = shares.iter().sum::<f64>() / RINGS as f64;
            let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / RINGS as f64;
            let deviation = (2.0 / 9.0 / (3.0 * points + 1.0)).sqrt();
            assert!(
                (mean - 1.0 / 3.0).abs() < 4.0 * deviation / (RINGS as f64).sqrt(),
                "{dialect:?}: {mean}"
            );
            assert!((0.84..1.16).contains(&(variance.sqrt() / deviation)), "{dialect:?}: {variance}");
            let worst = shares.iter().map(|share| (share - 1.0 / 3.0).abs()).fold(0.0, f64::max);
            assert!(worst < 4.5 * deviation, "{dialect:?}: {worst}");
        }
    }

    #[test]
    fn a_server_that_leaves_a_ring_moves_its_own_keys_only() {
        let servers = ["a", "b", "c", "d", "e"].map(|name| (name, 1));
        let (before, after) = (named(servers), named(servers.into_iter().take(4)));
        for key in numbered_keys(10_000) {
            let (old, new) = (before.owner(md5_low(&key)).unwrap(), after.owner(md5_low(&key)).unwrap());
            assert!(old == 4 || old == new, "{key:?} moved from {old} to {new}");
        }
    }

    #[test]
    fn an_empty_ring_owns_nothing_and_heirs_come_in_ring_order() {
        assert_eq!(named([]).owner(1), None);
        assert_eq!(named([("a", 0)]).owner(1), None);
        let ring = named([("a", 1), ("b", 1), ("c", 1)]);
        let heirs: std::collections::HashSet<_> = ring.owners(u32::MAX).collect();
        assert_eq!(heirs.len(), 3, "the ring closes on itself");
        assert_eq!(ring.owners(5).next(), ring.owner(5));
    }
}

mod tables {
    use super::*;

    fn nodes() -> Vec<(u64, f64)> {
        [("alpha", 1.0), ("beta", 3.0), ("gamma", 0.0), ("delta", 7.0)]
            .map(|(name, weight)| (xxh3_64(name.as_bytes()), weight))
            .into()
    }

    /// From the formula written in Python over the `xxhash` package.
    #[test]
    fn rendezvous_golden_vectors() {
        let owners: Vec<_> = numbered_keys(10_000).map(|key| rendezvous(&key, nodes()).unwrap()).collect();
        assert_eq!(owners[..10], [1, 3, 1, 1, 3, 3, 3, 3, 3, 3]);
        assert_eq!(fingerprint(owners), 567_110_284);
        assert_eq!(rendezvous(b"key", []), None);
    }

    /// Whatever ports three servers have, each key is a throw of dice of its own. The sum of 50 statistics of two
    /// degrees of freedom; above 149.4 it would be by chance once in a thousand.
    #[test]
    fn rendezvous_is_as_even_as_dice() {
        for function in [Function::Murmur3, Function::Xxh3] {
            let rule = Rule { function, distribution: Distribution::Rendezvous, full_weight: None };
            let mut dice = Dice::seeded(7);
            let mut statistic = 0.0;
            for _ in 0..50 {
                let addresses = [0, 1, 2].map(|slot| some_address(slot, &mut dice));
                let place = |(slot, address)| Place { slot, address, name: None, weight: 1 };
                let placement =
                    Placement::new(rule, &addresses.iter().enumerate().map(place).collect::<Vec<_>>());
                let mut counts = [0; 3];
                for key in numbered_keys(1_000) {
                    counts[placement.owner(&key, function.hash(&key)).unwrap()] += 1;
                }
                statistic += chi_square(&counts);
            }
            assert!(statistic < 149.4, "{function:?}: {statistic}");
        }
    }

    #[test]
    fn a_node_that_leaves_rendezvous_moves_its_own_keys_only() {
        for key in numbered_keys(10_000) {
            let before = rendezvous(&key, nodes()).unwrap();
            let after = rendezvous(&key, nodes().into_iter().take(3)).unwrap();
            assert!(before == 3 || before == after);
        }
    }

    /// The example of the paper's table 1.
    #[test]
    fn maglev_as_published() {
        let order = |offset, skip| Permutation { offset, skip, weight: 1.0 };
        assert_eq!(populate(&[order(3, 4), order(0, 2), order(3, 1)], 7), [1, 0, 1, 0, 2, 2, 0]);
    }

    /// From the paper's algorithm, with weights as credits, written in Python over `xxhash`.
    #[test]
    fn maglev_golden_vectors() {
        let table = Maglev::new([("alpha", 1.0), ("beta", 3.0), ("gamma", 2.0)]);
        let owners: Vec<_> = (0..65_537).map(|hash| table.owner(hash).unwrap()).collect();
        assert_eq!(owners[..10], [2, 0, 0, 0, 2, 2, 1, 1, 1, 1]);
        assert_eq!(fingerprint(owners), 77_269_477);
        assert_eq!(Maglev::new([]).owner(1), None);
        assert_eq!(Maglev::new([("alpha", 0.0)]).owner(1), None);
    }

    /// The paper promises little disruption, not none: of ten nodes one leaves, and of the
    /// others' keys fewer than five in a hundred move.
    #[test]
    fn a_node_that_leaves_maglev_moves_few_other_keys() {
        let names: Vec<_> = (0..10).map(|number| format!("node-{number}")).collect();
        let table = |count| Maglev::new(names.iter().take(count).map(|name| (name.as_str(), 1.0)));
        let (before, after) = (table(10), table(9));
        let others = (0..65_537).filter(|&hash| before.owner(hash) != Some(9));
        let moved = others.filter(|&hash| before.owner(hash) != after.owner(hash)).count();
        assert!(moved < 65_537 * 9 / 10 / 20, "{moved} moved");
    }
}

proptest! {
    /// Whatever the set: a pick is usable, and nobody usable has less to do.
    #[test]
    fn least_loaded_is_least(
        servers in prop::collection::vec((any::<bool>(), 0_u32..4, 0_u32..20), 0..12),
        seed: u64,
    ) {
        let servers: Vec<_> = servers
            .into_iter()
            .map(|(usable, weight, in_flight)| Server { usable, weight: f64::from(weight), in_flight, latency_s: 0.0 })
            .collect();
        let cost = |server: &Server| f64::from(server.in_flight) / server.weight;
        let may = |server: &&Server| server.usable && server.weight > 0.0;
        match least_loaded(&servers, NOW, &mut Dice::seeded(seed)) {
            None => prop_assert_eq!(servers.iter().filter(may).count(), 0),
            Some(index) => {
                prop_assert!(may(&&servers[index]));
                let least = servers.iter().filter(may).map(cost).fold(f64::INFINITY, f64::min);
                prop_assert!(cost(&servers[index]) <= least);
            }
        }
    }

    #[test]
    fn dice_stay_below_their_bound(seed: u64, bound in 1_usize..1_000) {
        let mut dice = Dice::seeded(seed);
        prop_assert!(dice.below(bound) < bound);
        prop_assert!((0.0..1.0).contains(&dice.unit()));
        prop_assert_eq!(dice.below(0), 0);
    }
}

/// From mcrouter's own tests (`WeightedCh3HashFunc`, `Ch3HashFunc`), whose values and checksums stand there.
mod mcrouter {
    use super::furc::{furc, furc_start, threshold, weighted_furc};

    fn checksum(keys: impl Iterator<Item = Vec<u8>>, owner: impl Fn(&[u8]) -> usize) -> u32 {
        keys.fold(0_u32, |sum, key| sum.wrapping_mul(31).wrapping_add(u32::try_from(owner(&key)).unwrap()))
    }

    fn keys(count: u32) -> impl Iterator<Item = Vec<u8>> {
        (0..count).map(|number| format!("k{number}").into_bytes())
    }

    fn long_keys() -> impl Iterator<Item = Vec<u8>> {
        let alphabet: Vec<u8> = (b'A'..=b'Z').cycle().take(128).collect();
        (0..10_000).map(move |number| [&alphabet[..], number.to_string().as_bytes()].concat())
    }

    #[test]
    fn ch3() {
        let owner = |key: &[u8], servers| furc(furc_start(key), servers);
        let few = [(&b"sample"[..], 100), (b"sample", 1), (b"", 100), (b"", 1 << 23), (b"sample", 1 << 23)];
        assert_eq!(few.map(|(key, servers)| owner(key, servers)), [97, 0, 72, 6_173_600, 5_167_780]);
        let mut all: Vec<u8> = (0..=255_u8).map(|byte| byte.wrapping_sub(128)).collect();
        assert_eq!(owner(&all, 99_999), 31_015);
        all.reverse();
        assert_eq!(owner(&all, 99_999), 67_101);
        for (servers, sum) in
            [(2, 1_346_413_954), (3, 914_505_363), (10, 2_894_016_351), (1_000, 2_251_851_331)]
        {
            assert_eq!(checksum(keys(100_000), |key| owner(key, servers)), sum, "{servers} servers");
        }
    }

    #[test]
    fn weighted_ch3() {
        let even = |servers: usize, weight: f64| vec![threshold(weight); servers];
        for (servers, sum) in [(2, 2_395_690_262), (10, 547_444_706), (100, 2_951_198_297)] {
            let half = even(servers, 0.5);
            assert_eq!(checksum(keys(10_000), |key| weighted_furc(key, &half)), sum, "{servers} servers");
        }
        for (servers, sum) in [(2, 3_431_444_300), (10, 1_290_067_504)] {
            let none = even(servers, 0.0);
            assert_eq!(checksum(keys(10_000), |key| weighted_furc(key, &none)), sum, "{servers} servers");
        }
        for (servers, sum) in [(10, 707_485_837), (100, 4_273_108_085)] {
            let half = even(servers, 0.5);
            assert_eq!(checksum(long_keys(), |key| weighted_furc(key, &half)), sum, "{servers} servers");
        }
        let weights = [0.429, 0.541, 0.117, 0.998, 0.283, 0.065, 0.109, 0.042, 0.676, 0.943].map(threshold);
        let mut counts = [0; 10];
        for number in 0..10_000 {
            counts[weighted_furc(number.to_string().as_bytes(), &weights)] += 1;
        }
        assert_eq!(counts, [1016, 1252, 288, 2354, 661, 195, 247, 122, 1668, 2197]);
    }

    /// Published by the author with SpookyHash V2 (`TestSpookyV2.cpp`): a message of the bytes 128, 129, ... under
    /// the seed 0; the lengths 0 to 3, and those around the change of ways and of a block.
    #[test]
    fn spooky() {
        let hash = |len: usize| {
            let message: Vec<u8> = (128..=255).chain(0..=127).cycle().take(len).collect();
            super::super::spooky::spooky_32(&message, 0)
        };
        assert_eq!([0, 1, 2, 3].map(hash), [0x6bf5_0919, 0x70de_1d26, 0xa2b3_7298, 0x35bc_5fbf]);
        let around = [0xe13d_9e19, 0x77e0_12bd, 0x2d05_114c, 0x2f40_ee0b, 0x38ce_bf03];
        assert_eq!([191, 192, 193, 255, 256].map(hash), around);
    }
}
