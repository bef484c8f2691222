package main

import (
	"bytes"
	"slices"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/dbreader"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
)

// scanBackwards scans from the upper bound down, in the snapshot that is asked for.
//
// unistore makes its iterator from the end before it says at which time to read, and so shows what is there now: one
// snapshot would give two answers, one from each end.
func (s *service) scanBackwards(request *kvrpcpb.ScanRequest) *kvrpcpb.ScanResponse {
	region, regionError := s.regions.GetRegionFromCtx(request.Context)
	if regionError != nil {
		return &kvrpcpb.ScanResponse{RegionError: regionError}
	}
	from, to := request.StartKey, request.EndKey
	if len(from) == 0 || bytes.Compare(from, region.RawEnd()) > 0 {
		from = region.RawEnd()
	}
	if bytes.Compare(to, region.RawStart()) < 0 {
		to = region.RawStart()
	}
	// The locks first: what is neither locked now nor visible afterwards commits later than the snapshot.
	found := &pairs{limit: int(request.Limit), locked: s.lockedIn(to, from, request)}
	snapshot := s.bundle.DB.NewTransaction(false)
	snapshot.SetReadTS(request.Version)
	reader := dbreader.NewDBReader(to, from, snapshot)
	defer reader.Close()
	if err := reader.ReverseScan(to, from, found.limit, request.Version, found); err != nil {
		return &kvrpcpb.ScanResponse{Error: &kvrpcpb.KeyError{Abort: err.Error()}}
	}
	return &kvrpcpb.ScanResponse{Pairs: found.fromEnd()}
}

// lockedIn are the locks in [low, high) that a reader has to mind.
func (s *service) lockedIn(low, high []byte, request *kvrpcpb.ScanRequest) []*kvrpcpb.KvPair {
	var locked []*kvrpcpb.KvPair
	locks := s.bundle.LockStore.NewIterator()
	for locks.Seek(low); locks.Valid() && bytes.Compare(locks.Key(), high) < 0; locks.Next() {
		lock := mvcc.DecodeLock(locks.Value())
		writes := lock.Op == uint8(kvrpcpb.Op_Put) || lock.Op == uint8(kvrpcpb.Op_Del)
		if !writes || lock.StartTS > request.Version || slices.Contains(request.Context.GetResolvedLocks(), lock.StartTS) {
			continue
		}
		key := bytes.Clone(locks.Key())
		locked = append(locked, &kvrpcpb.KvPair{Key: key, Error: &kvrpcpb.KeyError{Locked: lock.ToLockInfo(key)}})
	}
	return locked
}

// pairs are locks and rows of a range.
type pairs struct {
	limit  int
	locked []*kvrpcpb.KvPair
	rows   []*kvrpcpb.KvPair
}

func (*pairs) SkipValue() bool { return false }

// Process takes the next row.
func (p *pairs) Process(key, value []byte) error {
	p.rows = append(p.rows, &kvrpcpb.KvPair{Key: bytes.Clone(key), Value: bytes.Clone(value)})
	return nil
}

// fromEnd puts both in order, with a lock in the place of its row.
func (p *pairs) fromEnd() []*kvrpcpb.KvPair {
	all := append(p.locked, p.rows...)
	slices.SortStableFunc(all, func(a, b *kvrpcpb.KvPair) int { return bytes.Compare(b.Key, a.Key) })
	all = slices.CompactFunc(all, func(a, b *kvrpcpb.KvPair) bool { return bytes.Equal(a.Key, b.Key) })
	return all[:min(len(all), p.limit)]
}
