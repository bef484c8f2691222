package main

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
	"google.golang.org/grpc"
)

const stripeCount = 64

// present goes before every stored value: unistore takes an empty value for a deletion, TiKV does not.
const present = 1

// service corrects answers of unistore that differ from TiKV's.
//
// A prewrite that is also the commit (asynchronous or in one phase) takes its commit timestamp from PD before its write
// is visible; a reader with a later timestamp could read past it, and an update would be lost. So such a prewrite and the
// readers of its keys exclude each other here.
type service struct {
	*tikv.Server
	bundle  *mvcc.DBBundle
	regions *regions
	// intercept is what single requests pass on their way in.
	intercept grpc.UnaryServerInterceptor
	seed      maphash.Seed
	once      sync.Once
	stripes   [stripeCount]sync.RWMutex
}

func (s *service) stripesOf(keys [][]byte) []int {
	s.once.Do(func() { s.seed = maphash.MakeSeed() })
	var all []int
	for _, key := range keys {
		all = append(all, int(maphash.Bytes(s.seed, key)%stripeCount))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// reading keeps prewrites that commit off the keys until the function that it returns is called.
func (s *service) reading(keys ...[]byte) func() {
	taken := s.stripesOf(keys)
	for _, i := range taken {
		s.stripes[i].RLock()
	}
	return func() {
		for _, i := range taken {
			s.stripes[i].RUnlock()
		}
	}
}

// scanning keeps them off all keys.
func (s *service) scanning() func() {
	for i := range s.stripes {
		s.stripes[i].RLock()
	}
	return func() {
		for i := range s.stripes {
			s.stripes[i].RUnlock()
		}
	}
}

func (s *service) committing(keys [][]byte) func() {
	taken := s.stripesOf(keys)
	for _, i := range taken {
		s.stripes[i].Lock()
	}
	return func() {
		for _, i := range taken {
			s.stripes[i].Unlock()
		}
	}
}

func stored(value []byte) []byte { return append([]byte{present}, value...) }

func unstored(value []byte) []byte {
	if len(value) == 0 {
		return nil
	}
	return value[1:]
}

func unstoredPairs(pairs []*kvrpcpb.KvPair) {
	for _, pair := range pairs {
		pair.Value = unstored(pair.Value)
	}
}

func (s *service) KvPrewrite(ctx context.Context, request *kvrpcpb.PrewriteRequest) (*kvrpcpb.PrewriteResponse, error) {
	var keys [][]byte
	for _, mutation := range request.Mutations {
		if mutation.Op == kvrpcpb.Op_Put || mutation.Op == kvrpcpb.Op_Insert {
			mutation.Value = stored(mutation.Value)
		}
		keys = append(keys, mutation.Key)
	}
	if request.UseAsyncCommit || request.TryOnePc {
		defer s.committing(keys)()
	}
	return s.Server.KvPrewrite(ctx, request)
}

func (s *service) KvGet(ctx context.Context, request *kvrpcpb.GetRequest) (*kvrpcpb.GetResponse, error) {
	defer s.reading(request.Key)()
	response, err := s.Server.KvGet(ctx, request)
	if err == nil && response.RegionError == nil && response.Error == nil {
		response.NotFound = len(response.Value) == 0
		response.Value = unstored(response.Value)
	}
	return response, err
}

func (s *service) KvBatchGet(ctx context.Context, request *kvrpcpb.BatchGetRequest) (*kvrpcpb.BatchGetResponse, error) {
	defer s.reading(request.Keys...)()
	response, err := s.Server.KvBatchGet(ctx, request)
	unstoredPairs(response.GetPairs())
	return response, err
}

func (s *service) KvScan(ctx context.Context, request *kvrpcpb.ScanRequest) (*kvrpcpb.ScanResponse, error) {
	defer s.scanning()()
	if request.Reverse {
		response := s.scanBackwards(request)
		unstoredPairs(response.Pairs)
		return response, nil
	}
	response, err := s.Server.KvScan(ctx, request)
	unstoredPairs(response.GetPairs())
	return response, err
}

func (s *service) KvPessimisticLock(ctx context.Context, request *kvrpcpb.PessimisticLockRequest) (*kvrpcpb.PessimisticLockResponse, error) {
	response, err := s.Server.KvPessimisticLock(ctx, request)
	for i, value := range response.GetValues() {
		response.Values[i] = unstored(value)
		if i < len(response.NotFounds) && len(value) == 0 {
			response.NotFounds[i] = true
		}
	}
	return response, err
}
