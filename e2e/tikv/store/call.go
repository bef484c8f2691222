package main

import (
	"bytes"
	"context"
	"slices"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// call is a request, seen by fail points.
type call struct {
	ctx     context.Context
	kind    string
	request any
}

// keys that the request names, raw. A scan names where it begins.
func (c *call) keys() [][]byte {
	switch request := c.request.(type) {
	case *kvrpcpb.PrewriteRequest:
		return keysOf(request.Mutations)
	case *kvrpcpb.PessimisticLockRequest:
		return keysOf(request.Mutations)
	case *kvrpcpb.CommitRequest:
		return request.Keys
	case *kvrpcpb.BatchRollbackRequest:
		return request.Keys
	case *kvrpcpb.GetRequest:
		return [][]byte{request.Key}
	case *kvrpcpb.BatchGetRequest:
		return request.Keys
	case *kvrpcpb.ScanRequest:
		return [][]byte{request.StartKey}
	case *kvrpcpb.ScanLockRequest:
		return [][]byte{request.StartKey}
	case *kvrpcpb.CheckTxnStatusRequest:
		return [][]byte{request.PrimaryKey}
	case *kvrpcpb.TxnHeartBeatRequest:
		return [][]byte{request.PrimaryLock}
	case *kvrpcpb.ResolveLockRequest:
		return request.Keys
	default:
		return nil
	}
}

func keysOf(mutations []*kvrpcpb.Mutation) [][]byte {
	var keys [][]byte
	for _, mutation := range mutations {
		keys = append(keys, mutation.Key)
	}
	return keys
}

// primary is the primary key of the transaction, where the request says it.
func (c *call) primary() []byte {
	if request, ok := c.request.(*kvrpcpb.PrewriteRequest); ok {
		return request.PrimaryLock
	}
	return nil
}

func (c *call) touches(prefix []byte) bool {
	return len(prefix) == 0 || slices.ContainsFunc(c.keys(), func(key []byte) bool { return bytes.HasPrefix(key, prefix) })
}

func (c *call) region() uint64 {
	if request, ok := c.request.(interface{ GetContext() *kvrpcpb.Context }); ok {
		return request.GetContext().GetRegionId()
	}
	return 0
}

func (c *call) refuseOnePhase() {
	if request, ok := c.request.(*kvrpcpb.PrewriteRequest); ok {
		request.TryOnePc = false
	}
}

// withRegionError is the answer to the request that has only a region error, or nil for other requests.
func (c *call) withRegionError(regionError *errorpb.Error) any {
	switch c.request.(type) {
	case *kvrpcpb.PrewriteRequest:
		return &kvrpcpb.PrewriteResponse{RegionError: regionError}
	case *kvrpcpb.PessimisticLockRequest:
		return &kvrpcpb.PessimisticLockResponse{RegionError: regionError}
	case *kvrpcpb.CommitRequest:
		return &kvrpcpb.CommitResponse{RegionError: regionError}
	case *kvrpcpb.BatchRollbackRequest:
		return &kvrpcpb.BatchRollbackResponse{RegionError: regionError}
	case *kvrpcpb.GetRequest:
		return &kvrpcpb.GetResponse{RegionError: regionError}
	case *kvrpcpb.BatchGetRequest:
		return &kvrpcpb.BatchGetResponse{RegionError: regionError}
	case *kvrpcpb.ScanRequest:
		return &kvrpcpb.ScanResponse{RegionError: regionError}
	case *kvrpcpb.ScanLockRequest:
		return &kvrpcpb.ScanLockResponse{RegionError: regionError}
	case *kvrpcpb.CheckTxnStatusRequest:
		return &kvrpcpb.CheckTxnStatusResponse{RegionError: regionError}
	case *kvrpcpb.TxnHeartBeatRequest:
		return &kvrpcpb.TxnHeartBeatResponse{RegionError: regionError}
	case *kvrpcpb.ResolveLockRequest:
		return &kvrpcpb.ResolveLockResponse{RegionError: regionError}
	default:
		return nil
	}
}
