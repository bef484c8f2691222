package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/pkg/util/codec"
)

const (
	protocolVersion = "8.5.0" // of the TiKV that this store says it is
	heartbeatEvery  = 2 * time.Second
	// What PD is told of every region: enough for it to count as one with data, too little for it to split.
	regionTerm    = 6
	regionSizeMiB = 1
	regionKeys    = 1024
	storeBytes    = 64 << 30
	identityFile  = "identity.json"
)

// region is a range of keys. It never changes: a split puts others in its place.
type region struct {
	meta       *metapb.Region
	start, end []byte // raw, and never empty
	bytes      int64  // unistore counts here; nobody looks
	latches    *latches
}

func newRegion(meta *metapb.Region, latches *latches) (*region, error) {
	start, err := decodeBound(meta.StartKey)
	if err != nil {
		return nil, err
	}
	end, err := decodeBound(meta.EndKey)
	if err != nil {
		return nil, err
	}
	if len(start) == 0 {
		start = []byte{1} // rows of this store itself begin with 0
	}
	if len(end) == 0 {
		end = []byte{0xff}
	}
	return &region{meta: meta, start: start, end: end, latches: latches}, nil
}

// Bounds of regions are told to PD in the memory-comparable encoding, as clients expect of transactional data.
func decodeBound(bound []byte) ([]byte, error) {
	if len(bound) == 0 {
		return nil, nil
	}
	_, raw, err := codec.DecodeBytes(bound, nil)
	return raw, err
}

func encodeBound(raw []byte) []byte {
	if len(raw) == 0 {
		return nil
	}
	return codec.EncodeBytes(nil, raw)
}

func (r *region) Meta() *metapb.Region           { return r.meta }
func (r *region) Diff() *int64                   { return &r.bytes }
func (r *region) RawStart() []byte               { return r.start }
func (r *region) RawEnd() []byte                 { return r.end }
func (r *region) AcquireLatches(hashes []uint64) { r.latches.acquire(hashes) }
func (r *region) ReleaseLatches(hashes []uint64) { r.latches.release(hashes) }
func (r *region) holds(key []byte) bool {
	return bytes.Compare(key, r.start) > 0 && bytes.Compare(key, r.end) < 0
}

// latches let one command at a time at a key. All regions share them, so that a split does not let a second one in.
type latches struct {
	mutex sync.Mutex
	freed *sync.Cond
	held  map[uint64]struct{}
}

func newLatches() *latches {
	l := &latches{held: map[uint64]struct{}{}}
	l.freed = sync.NewCond(&l.mutex)
	return l
}

// acquire takes all of them at once or none, so that nobody waits while holding.
func (l *latches) acquire(hashes []uint64) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for slices.ContainsFunc(hashes, func(hash uint64) bool { _, taken := l.held[hash]; return taken }) {
		l.freed.Wait()
	}
	for _, hash := range hashes {
		l.held[hash] = struct{}{}
	}
}

func (l *latches) release(hashes []uint64) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, hash := range hashes {
		delete(l.held, hash)
	}
	l.freed.Broadcast()
}

// identity is what a store knows of itself after a restart.
type identity struct {
	Store   *metapb.Store    `json:"store"`
	Regions []*metapb.Region `json:"regions"`
}

// regions are those of one store. It implements unistore's RegionManager.
type regions struct {
	placement *placement
	file      string
	store     *metapb.Store
	latches   *latches
	changed   chan struct{} // makes the next heartbeat come at once

	mutex sync.RWMutex
	byID  map[uint64]*region
}

// openRegions loads the regions of this store, or makes a new store, and tells PD of it.
func openRegions(placement *placement, o options, cuts [][]byte) (*regions, error) {
	rs := &regions{placement: placement, file: filepath.Join(o.directory, identityFile), latches: newLatches(),
		changed: make(chan struct{}, 1), byID: map[uint64]*region{}}
	known, err := rs.load()
	if errors.Is(err, os.ErrNotExist) {
		known, err = rs.create(o, cuts)
	}
	if err != nil {
		return nil, err
	}
	rs.store = known.Store
	if err := rs.put(known.Regions); err != nil {
		return nil, err
	}
	rs.store.Address = o.advertise
	rs.store.StatusAddress = o.control
	rs.store.Version = protocolVersion
	rs.store.StartTimestamp = time.Now().Unix()
	return rs, placement.PutStore(context.Background(), rs.store)
}

func (rs *regions) load() (*identity, error) {
	data, err := os.ReadFile(rs.file)
	if err != nil {
		return nil, err
	}
	known := new(identity)
	return known, json.Unmarshal(data, known)
}

// create makes a new store. The first of a cluster makes the cluster, with one region; the others wait for that. Each
// then has every count-th of the ranges between the cuts.
func (rs *regions) create(o options, cuts [][]byte) (*identity, error) {
	id, err := rs.ids(1)
	if err != nil {
		return nil, err
	}
	known := &identity{Store: &metapb.Store{Id: id[0], Address: o.advertise, Version: protocolVersion}}
	bounds := sortedBounds(cuts)
	for i := o.index; i+1 < len(bounds); i += o.count {
		id, err := rs.ids(2)
		if err != nil {
			return nil, err
		}
		known.Regions = append(known.Regions, &metapb.Region{Id: id[0], StartKey: encodeBound(bounds[i]),
			EndKey: encodeBound(bounds[i+1]), RegionEpoch: &metapb.RegionEpoch{ConfVer: 1, Version: 2},
			Peers: []*metapb.Peer{{Id: id[1], StoreId: known.Store.Id}}})
	}
	if o.index == 0 {
		// PD takes only a region that holds all keys; the heartbeats of the narrower ones, which have a newer epoch,
		// then take its place.
		whole := &metapb.Region{Id: known.Regions[0].Id, RegionEpoch: &metapb.RegionEpoch{ConfVer: 1, Version: 1},
			Peers: known.Regions[0].Peers}
		err = rs.placement.begin(context.Background(), known.Store, whole)
	} else {
		err = rs.awaitCluster()
	}
	if err != nil {
		return nil, err
	}
	return known, rs.save(known)
}

// sortedBounds has an empty key before and after the cuts.
func sortedBounds(cuts [][]byte) [][]byte {
	cuts = slices.Clone(cuts)
	slices.SortFunc(cuts, bytes.Compare)
	cuts = slices.CompactFunc(cuts, bytes.Equal)
	return append(append([][]byte{nil}, cuts...), nil)
}

func (rs *regions) awaitCluster() error {
	for deadline := time.Now().Add(placementStartTimeout); ; time.Sleep(placementRetryWait) {
		if made, err := rs.placement.IsBootstrapped(context.Background()); err != nil || made {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("the first store did not begin the cluster")
		}
	}
}

func (rs *regions) ids(count int) ([]uint64, error) {
	var ids []uint64
	for range count {
		id, err := rs.placement.AllocID(context.Background())
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// save replaces the file at once, and it is there after a crash.
func (rs *regions) save(known *identity) error {
	data, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return err
	}
	next, err := os.Create(rs.file + ".next")
	if err != nil {
		return err
	}
	defer next.Close()
	if _, err := next.Write(data); err != nil {
		return err
	}
	if err := next.Sync(); err != nil {
		return err
	}
	return os.Rename(next.Name(), rs.file)
}

func (rs *regions) put(metas []*metapb.Region) error {
	rs.mutex.Lock()
	defer rs.mutex.Unlock()
	for _, meta := range metas {
		region, err := newRegion(meta, rs.latches)
		if err != nil {
			return err
		}
		rs.byID[meta.Id] = region
	}
	return nil
}

// list is in the order of the keys.
func (rs *regions) list() []*region {
	rs.mutex.RLock()
	defer rs.mutex.RUnlock()
	var all []*region
	for _, r := range rs.byID {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *region) int { return bytes.Compare(a.start, b.start) })
	return all
}

// report keeps PD informed for as long as the process lives.
func (rs *regions) report() {
	tick := time.NewTicker(heartbeatEvery)
	for {
		var led []*metapb.Region
		for _, r := range rs.list() {
			led = append(led, r.meta)
		}
		stats := &pdpb.StoreStats{StoreId: rs.store.Id, RegionCount: uint32(len(led)), Capacity: storeBytes,
			Available: storeBytes, StartTime: uint32(rs.store.StartTimestamp)}
		if err := rs.placement.heartbeat(stats, led); err != nil {
			log.Printf("PD took no heartbeat: %v", err)
		}
		select {
		case <-tick.C:
		case <-rs.changed:
		}
	}
}

// split cuts a region at raw keys that lie inside of it. What is right of the first cut gets new ids, as in TiKV.
func (rs *regions) split(r *region, keys [][]byte) ([]*metapb.Region, error) {
	for _, key := range keys {
		if !r.holds(key) {
			return nil, fmt.Errorf("the key %x is a bound of region %d or outside of it", key, r.meta.Id)
		}
	}
	cuts := sortedBounds(keys)
	version := r.meta.RegionEpoch.Version + uint64(len(cuts)-2)
	var metas []*metapb.Region
	for i := range len(cuts) - 1 {
		id, err := rs.ids(2)
		if err != nil {
			return nil, err
		}
		metas = append(metas, &metapb.Region{Id: id[0], StartKey: encodeBound(cuts[i]), EndKey: encodeBound(cuts[i+1]),
			RegionEpoch: &metapb.RegionEpoch{ConfVer: r.meta.RegionEpoch.ConfVer, Version: version},
			Peers:       []*metapb.Peer{{Id: id[1], StoreId: rs.store.Id}}})
	}
	last := len(metas) - 1
	metas[0].StartKey, metas[last].EndKey = r.meta.StartKey, r.meta.EndKey
	metas[last].Id, metas[last].Peers = r.meta.Id, r.meta.Peers
	if err := rs.put(metas); err != nil {
		return nil, err
	}
	known := &identity{Store: rs.store}
	for _, region := range rs.list() {
		known.Regions = append(known.Regions, region.meta)
	}
	if err := rs.save(known); err != nil {
		return nil, err
	}
	select {
	case rs.changed <- struct{}{}:
	default:
	}
	return metas, nil
}

// splitAt cuts the region that holds the raw key.
func (rs *regions) splitAt(key []byte) ([]*metapb.Region, error) {
	for _, r := range rs.list() {
		if r.holds(key) {
			return rs.split(r, [][]byte{key})
		}
	}
	return nil, fmt.Errorf("no region of this store has the key %x inside of it", key)
}

// SplitRegion is the request of TiKV's protocol.
func (rs *regions) SplitRegion(request *kvrpcpb.SplitRegionRequest) *kvrpcpb.SplitRegionResponse {
	found, regionError := rs.GetRegionFromCtx(request.Context)
	if regionError != nil {
		return &kvrpcpb.SplitRegionResponse{RegionError: regionError}
	}
	keys := request.SplitKeys
	if len(keys) == 0 {
		keys = [][]byte{request.SplitKey}
	}
	metas, err := rs.split(found.(*region), keys)
	if err != nil {
		return &kvrpcpb.SplitRegionResponse{RegionError: &errorpb.Error{Message: err.Error()}}
	}
	return &kvrpcpb.SplitRegionResponse{Regions: metas}
}

// GetRegionFromCtx finds the region that a request is for, or says what is wrong with the client's idea of it.
func (rs *regions) GetRegionFromCtx(ctx *kvrpcpb.Context) (tikv.RegionCtx, *errorpb.Error) {
	if _, _, regionError := rs.GetStoreInfoFromCtx(ctx); regionError != nil {
		return nil, regionError
	}
	rs.mutex.RLock()
	r := rs.byID[ctx.GetRegionId()]
	rs.mutex.RUnlock()
	if r == nil {
		return nil, &errorpb.Error{Message: "region not found",
			RegionNotFound: &errorpb.RegionNotFound{RegionId: ctx.GetRegionId()}}
	}
	asked, is := ctx.GetRegionEpoch(), r.meta.RegionEpoch
	if asked.GetVersion() != is.Version || asked.GetConfVer() != is.ConfVer {
		return nil, rs.epochNotMatch(r)
	}
	return r, nil
}

func (rs *regions) epochNotMatch(r *region) *errorpb.Error {
	return &errorpb.Error{Message: "epoch not match",
		EpochNotMatch: &errorpb.EpochNotMatch{CurrentRegions: []*metapb.Region{r.meta}}}
}

// GetStoreInfoFromCtx refuses what was meant for another store.
func (rs *regions) GetStoreInfoFromCtx(ctx *kvrpcpb.Context) (string, uint64, *errorpb.Error) {
	if peer := ctx.GetPeer(); peer != nil && peer.StoreId != rs.store.Id {
		return "", 0, &errorpb.Error{Message: "store not match",
			StoreNotMatch: &errorpb.StoreNotMatch{RequestStoreId: peer.StoreId, ActualStoreId: rs.store.Id}}
	}
	return rs.store.Address, rs.store.Id, nil
}

func (rs *regions) GetStoreIDByAddr(string) (uint64, error)      { return rs.store.Id, nil }
func (rs *regions) GetStoreAddrByStoreID(uint64) (string, error) { return rs.store.Address, nil }
func (rs *regions) Close() error                                 { return nil }
