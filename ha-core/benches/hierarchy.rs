//! Reading hierarchy files: what a start and a reload wait for.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ha_core::hierarchy::{Fields, Kinds, Source, read_sources};

struct Programs;

impl Kinds for Programs {
    type Resource = Vec<String>;
    type Claim = String;
    type Probe = String;

    fn resource_kinds(&self) -> &[&'static str] {
        &["Process"]
    }
    fn claim_kinds(&self) -> &[&'static str] {
        &["LockArea"]
    }
    fn probe_kinds(&self) -> &[&'static str] {
        &["Ping"]
    }
    fn resource(&self, _: &str, fields: &mut Fields<'_>) -> Option<Vec<String>> {
        fields.required("command", "a list of words")
    }
    fn claim(&self, _: &str, fields: &mut Fields<'_>) -> Option<String> {
        fields.only_or("name", "the name of a lock area")
    }
    fn probe(&self, _: &str, fields: &mut Fields<'_>) -> Option<String> {
        fields.only_or("address", "an address")
    }
}

fn text(i: usize) -> String {
    format!(
        "Hierarchy(name: \"h{i}\", nodes: [\"alpha\", \"beta\", \"gamma\"], claim: LockArea(\"main\"), utility: [Ping(\"10.0.0.1\")],
            resources: [
                Process(name: \"data\", command: [\"/bin/data\", \"{i}\"]),
                Process(name: \"server\", command: [\"/bin/server\"], timeouts: (start: \"5s\"), requires: [\"data\"]),
            ])"
    )
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("hierarchy/read");
    for files in [10, 1_000, 10_000] {
        let sources: Vec<Source> = (0..files).map(|i| Source::new(format!("h{i}.ron"), text(i))).collect();
        group.throughput(Throughput::Elements(files as u64));
        group.bench_with_input(BenchmarkId::from_parameter(files), &sources, |b, sources| {
            b.iter(|| read_sources(sources, &Programs).loaded.len());
        });
    }
    group.finish();
}

criterion_group!(benches, read);
criterion_main!(benches);
