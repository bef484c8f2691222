//! The laws of every store, on a simulated cluster without faults: in one region, and in several.

use tandem_store_tikv::retry::Timeouts;
use tandem_store_tikv::simulated::{Faults, Shape, SimulatedClient, SimulatedCluster};
use tandem_store_tikv::store::ClusterStore;

type Opened = (ClusterStore<SimulatedClient>, ());

fn open(borders: &[&'static str], latency_ms_max: u64) -> Opened {
    let borders = borders.iter().map(|border| (*border).into()).collect();
    let cluster = SimulatedCluster::new(1, &Shape { stores: 3, borders });
    cluster.set_faults(Faults::latency(latency_ms_max));
    (ClusterStore::new(cluster.process(), Timeouts::default()), ())
}

async fn in_one_region() -> Opened {
    open(&[], 0)
}

async fn in_many_regions() -> Opened {
    open(&["a", "b", "c", "d", "k", "key/1", "m", "x"], 1)
}

mod one_region {
    tandem_store::store_laws!(super::in_one_region);
    tandem_store::history_laws!(super::in_one_region);
}

mod many_regions {
    tandem_store::store_laws!(super::in_many_regions);
    tandem_store::history_laws!(super::in_many_regions);
}
