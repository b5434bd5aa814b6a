# Every recipe is a cargo line or two: where `just` is not installed, type the line.

# What there is.
default:
    @just --list

# The main job, on the real server, in a few seconds.
demo:
    cargo run --release --example demo

# All tests.
test:
    cargo test --workspace --locked

# Lines that no test runs, of the rules, the pools, the store and its pool: docs/scenarios.md names those that stay.
# Needs `cargo install cargo-llvm-cov`; it adds the component llvm-tools. A build of its own, and half an hour.
coverage:
    cargo llvm-cov --no-report --locked -p keypool-projections -p keypool-server -p keypool-client
    cargo llvm-cov report --show-missing-lines | grep -E '^Filename|^Uncovered|projections/src|server/src/(pools|keypackage_store)|client/src/(storage|mls/keypackage_pool)'

# Every history of three packages and three inviters, in larger worlds than those of CI: minutes, and gigabytes of memory.
model:
    KEYPOOL_MODEL=large cargo test --release -p keypool-projections --test projections --locked model:: -- --nocapture

# The rules with one fault after the other, each of which a test must notice (needs `cargo install cargo-mutants`). Hours
# for all: `just mutants --shard 0/8`, `just mutants -f projections/src/decide.rs`; by the model alone with `-- model::`,
# quicker without it with `-- --skip model::`.
mutants *ARGS:
    KEYPOOL_MODEL=small KEYPOOL_HISTORIES=300 INSTA_UPDATE=no CARGO_INCREMENTAL=1 cargo mutants -p keypool-projections --output target {{ARGS}}

# The chat on real terminals, driven by `expect` (Debian: apt-get install expect).
e2e *TESTS:
    client/e2e_tests/run {{TESTS}}

# The npm package, against the real server, in Node and in browser tabs.
js *TESTS:
    client/js/run {{TESTS}}

# Devices in Python beside those in Rust, against the real server.
bindings:
    client/bindings/run

# A whole disk searched for dead keys, and power cuts (needs root and loop devices).
disks:
    cargo test -p keypool-client --test client --locked sealing::image -- --ignored
    cargo test -p keypool-server --test server --locked whole_disk -- --ignored

# A server and the chat killed, a power cut (root, loop devices), files damaged, and histories of 64 clients checked for an
# order that explains them: 2,000 kills of each, 1,000 cuts, 1,700 damages and 20 kills are two hours.
campaign KILLS="2000" CUTS="1000" DAMAGES="1700" LINEAR="20":
    KEYPOOL_KILLS={{KILLS}} cargo test -p keypool-server --test server --locked killed_again_and_again -- --nocapture
    KEYPOOL_POWER_CUTS={{CUTS}} cargo test -p keypool-server --test server --locked power_cut -- --ignored --nocapture
    KEYPOOL_APP_KILLS={{KILLS}} cargo test -p keypool-cli --test cli --locked killed:: -- --nocapture
    KEYPOOL_DAMAGES={{DAMAGES}} cargo test -p keypool-server --test server --locked damaged_file -- --nocapture
    KEYPOOL_LINEAR_KILLS={{LINEAR}} KEYPOOL_LINEAR_ROUNDS=100 cargo test -p keypool-server --test server --locked linearizable -- --nocapture

# The tests of server and client on logs that hide names, but for those that count records or write a log by hand.
test-hidden:
    KEYPOOL_TEST_HIDE_NAMES=1 cargo test --locked -p keypool-server --test server -- --skip description:: --skip documents:: --skip examples:: --skip surface:: --skip restoring:: --skip ledger::
    KEYPOOL_TEST_HIDE_NAMES=1 cargo test --locked -p keypool-client --test client -- --skip owner_audit::a_welcome_from_another --skip owner_audit::two_futures

# The tests of the client on SQLite, and without sled.
test-sqlite *ARGS:
    cargo test -p keypool-client --locked --no-default-features --features sqlite-store,reqwest {{ARGS}}

# Invitations under random faults: each ends with a member or a reason. A failure names its seed.
outcomes COUNT="10000" SEED="1":
    KEYPOOL_INVITATIONS={{COUNT}} KEYPOOL_SEED={{SEED}} cargo test --release -p keypool-client --test client --locked every_invitation_ends -- --nocapture

# Simulated servers, devices, networks, disks and clocks: seeds from FIRST on. A failure names its seed.
simulate SEEDS="50000" FIRST="1":
    KEYPOOL_SIMULATION_SEEDS={{SEEDS}} KEYPOOL_SIMULATION_FIRST={{FIRST}} cargo test --release -p keypool-server --test pools --locked every_promise_holds -- --nocapture

# A fuzz target under libFuzzer, from its corpus on: needs the nightly toolchain and `cargo install cargo-fuzz`.
# Without TARGET the targets are named. An input that fails is kept in target/fuzz.
fuzz TARGET="" SECONDS="60":
    client/fuzz/run {{TARGET}} {{SECONDS}}

# The inputs that `just fuzz` has found, as few as reach the same code, for the corpus in fixtures/fuzz.
fuzz-keep TARGET:
    client/fuzz/run {{TARGET}} keep

# The server under load, beside what else could have been built: rewrites its part of docs/benchmarks.md.
# PostgreSQL 15 and Redis 7 are measured where they are (apt-get install postgresql-15 redis-server).
# So are three servers over three NATS nodes, if KEYPOOL_NATS_SERVER is the path of nats-server.
bench *ARGS: bench-build
    cargo run --release --locked -p keypool-server --features bench,cluster --example load -- run --page docs/benchmarks.md {{ARGS}}

# The same in two minutes, too short to trust: only says what it finds.
bench-quick: bench-build
    cargo run --release --locked -p keypool-server --features bench,cluster --example load -- run --rounds 1 --share 0.25 --large-events 100000 --large-pools 2000 --large-pool-events 10000

# One load on one subject, again and again: `just bench-one --subject keypool --concurrency 64 --signed`.
# With several of both, each round measures them in turn: `just bench-one --subject keypool,cluster --concurrency 1,64`.
bench-one *ARGS: bench-build
    cargo run --release --locked -p keypool-server --features bench,cluster --example load -- once {{ARGS}}

# Both programs at once, so that what they share is built once.
[private]
bench-build:
    cargo build --release --locked -p keypool-server --features bench,cluster --bin keypool-server --example load

# What sealing costs a device, as docs/benchmarks.md has it.
bench-storage:
    cargo run --release --locked -p keypool-client --example storage_cost

# How fast a log of 2 million events is audited, as docs/benchmarks.md has it.
bench-audit:
    cargo run --release --locked -p keypool-auditor --example audit_rate -- 2000000

# What codec, rules, signatures and admission cost, each by itself.
bench-rules *ARGS:
    cargo bench --locked -p keypool-ledger -p keypool-projections -p keypool-server --bench codec --bench rules --bench reading --bench admission --bench verification -- {{ARGS}}

# A refresh and a join beside what bare OpenMLS does in memory, as docs/benchmarks.md has it.
bench-client *ROUNDS:
    cargo run --release --locked -p keypool-client --example beside_openmls -- {{ROUNDS}}

# What this machine's disk and memory give the pools: values for docs/figures.toml.
bench-machine:
    cargo run --release --locked -p keypool-server --example machine_figures

# The tables of docs/scaling.md, made anew from docs/figures.toml.
scaling *ARGS:
    cargo run --locked -p keypool-server --example scaling -- {{ARGS}}

# What CI checks, tests and demo included.
ci:
    bash .ci/run

# Formatting and lints.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# Start a server on http://127.0.0.1:8080, with its data in ./keypool-data.
serve *ARGS:
    cargo run --release --bin keypool-server -- {{ARGS}}

# A cluster of three servers and three NATS nodes on this machine, to try it.
cluster *ARGS:
    server/packaging/try-cluster {{ARGS}}

# Nodes and servers of a cluster killed, paused and (as root) cut off under load; KEYPOOL_NATS_SERVER is the path of nats-server.
chaos ROUNDS="40":
    KEYPOOL_CHAOS_ROUNDS={{ROUNDS}} cargo test --locked -p keypool-server --features cluster --test server -- cluster_chaos cluster_partitions --nocapture --test-threads 1
    KEYPOOL_NATS_ROUNDS={{ROUNDS}} cargo test --locked -p keypool-nats --test nats -- nothing_is_lost --nocapture
    KEYPOOL_POSTGRES_ROUNDS={{ROUNDS}} cargo test --locked -p keypool-postgres --test postgres -- nothing_is_lost_while --nocapture

# The Debian package of the server, in target/debian (needs `cargo install cargo-deb`).
deb *ARGS:
    server/packaging/build-deb {{ARGS}}

# That package installed, upgraded, used and purged in a small Debian with its own systemd (root, debootstrap,
# systemd-container): `just deb-test target/debian/NEW.deb [OLDER.deb]`.
deb-test *PACKAGES:
    server/packaging/test-deb {{PACKAGES}}

# keypool-server and keypool-ledger as files that need no shared library.
static:
    server/packaging/build-static

# The image, built and run by buildah without a registry, with the programs of a debug build.
image-test *PROGRAMS:
    server/packaging/test-image {{PROGRAMS}}

# The disk under weeks of the same load, as docs/benchmarks.md has it: time is moved, the load takes half an hour.
retention DAYS="20" EXCHANGES="150":
    KEYPOOL_RETENTION_DAYS={{DAYS}} KEYPOOL_RETENTION_EXCHANGES={{EXCHANGES}} cargo test --locked -p keypool-server --test server retention -- --nocapture

# The views of the operator's page on 10 million events (6 GB of log, 5 of index), and a load with --seconds.
bench-page *ARGS: bench-build
    cargo run --release --locked -p keypool-server --features bench,cluster --example load -- page {{ARGS}}

# Two hours of 50 requests a second on 1,000 pools, with a restart every ten minutes, as docs/reliability.md has it.
soak *ARGS: bench-build
    cargo run --release --locked -p keypool-server --features bench,cluster --example load -- soak {{ARGS}}

# All that CI runs small, in its large form: a night.
nightly: simulate model outcomes campaign chaos soak

# Licences, advisories and banned crates (needs `cargo install cargo-deny`).
deny:
    cargo deny check

# Publish the crates and the npm package, after `just ci`: needs the tokens of both registries.
release:
    cargo publish --workspace --locked
    cd client/js && npm publish
