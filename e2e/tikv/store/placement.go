package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	unistorepd "github.com/pingcap/tidb/pkg/store/mockstore/unistore/pd"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	pd "github.com/tikv/pd/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

const (
	placementCallTimeout  = 3 * time.Second
	placementStartTimeout = 30 * time.Second
	placementRetryWait    = 100 * time.Millisecond
	timestampsAtOnceMax   = 1024
	safePointEvery        = 2 * time.Second
)

// placement is a client of one PD, for what a store needs. unistore's own client knows no TLS, and goes to the address that
// PD advertises, which may be a proxy for the clients under test.
//
// It keeps trying for as long as its caller does: a store outlives a PD that is down or frozen.
type placement struct {
	unistorepd.Client // what no store asks for; nil
	rpc               pdpb.PDClient
	cluster           uint64
	timestamps        chan chan timestamp
	regions           pdpb.PD_RegionHeartbeatClient // used by heartbeat alone
}

type timestamp struct{ physical, logical int64 }

func connectPlacement(address string, config *tls.Config) (*placement, error) {
	reconnect := grpc.ConnectParams{MinConnectTimeout: placementCallTimeout, Backoff: backoff.Config{
		BaseDelay: placementRetryWait, Multiplier: 1.5, Jitter: 0.2, MaxDelay: time.Second}}
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(transport(config)),
		grpc.WithConnectParams(reconnect), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, err
	}
	p := &placement{rpc: pdpb.NewPDClient(connection), timestamps: make(chan chan timestamp)}
	ctx, cancel := context.WithTimeout(context.Background(), placementStartTimeout)
	defer cancel()
	err = p.ask(ctx, func(ctx context.Context) (answer, error) {
		members, err := p.rpc.GetMembers(ctx, &pdpb.GetMembersRequest{})
		if err == nil && members.GetLeader() == nil {
			return nil, errors.New("PD has no leader yet")
		}
		p.cluster = members.GetHeader().GetClusterId()
		return members, err
	})
	if err != nil {
		return nil, fmt.Errorf("no answer from PD at %s: %w", address, err)
	}
	go p.fetchTimestamps()
	return p, nil
}

type answer interface{ GetHeader() *pdpb.ResponseHeader }

// ask repeats a call until it succeeds or ctx is over.
func (p *placement) ask(ctx context.Context, call func(context.Context) (answer, error)) error {
	for {
		limited, cancel := context.WithTimeout(ctx, placementCallTimeout)
		got, err := call(limited)
		cancel()
		if err == nil {
			if refused := got.GetHeader().GetError(); refused == nil {
				return nil
			} else {
				err = errors.New(refused.String())
			}
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(placementRetryWait):
		}
	}
}

func (p *placement) header() *pdpb.RequestHeader { return &pdpb.RequestHeader{ClusterId: p.cluster} }

func (p *placement) GetClusterID(context.Context) uint64 { return p.cluster }
func (p *placement) Close()                              {}

func (p *placement) AllocID(ctx context.Context) (id uint64, err error) {
	err = p.ask(ctx, func(ctx context.Context) (answer, error) {
		got, err := p.rpc.AllocID(ctx, &pdpb.AllocIDRequest{Header: p.header()})
		id = got.GetId()
		return got, err
	})
	return id, err
}

func (p *placement) IsBootstrapped(ctx context.Context) (done bool, err error) {
	err = p.ask(ctx, func(ctx context.Context) (answer, error) {
		got, err := p.rpc.IsBootstrapped(ctx, &pdpb.IsBootstrappedRequest{Header: p.header()})
		done = got.GetBootstrapped()
		return got, err
	})
	return done, err
}

// begin makes a cluster of one store and one region. Somebody may have done it already: an answer can get lost.
func (p *placement) begin(ctx context.Context, store *metapb.Store, region *metapb.Region) error {
	return p.ask(ctx, func(ctx context.Context) (answer, error) {
		got, err := p.rpc.Bootstrap(ctx, &pdpb.BootstrapRequest{Header: p.header(), Store: store, Region: region})
		if got.GetHeader().GetError().GetType() == pdpb.ErrorType_ALREADY_BOOTSTRAPPED {
			got.Header.Error = nil
		}
		return got, err
	})
}

func (p *placement) PutStore(ctx context.Context, store *metapb.Store) error {
	return p.ask(ctx, func(ctx context.Context) (answer, error) {
		return p.rpc.PutStore(ctx, &pdpb.PutStoreRequest{Header: p.header(), Store: store})
	})
}

// GetTS returns a fresh timestamp of PD.
func (p *placement) GetTS(ctx context.Context) (int64, int64, error) {
	reply := make(chan timestamp, 1)
	select {
	case p.timestamps <- reply:
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	select {
	case t := <-reply:
		return t.physical, t.logical, nil
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}

// fetchTimestamps asks PD once for all that wait at the same time. A timestamp is fresh for those only who asked before
// the request to PD left, so nobody joins later.
func (p *placement) fetchTimestamps() {
	var stream pdpb.PD_TsoClient
	for first := range p.timestamps {
		waiting := []chan timestamp{first}
		for more := true; more && len(waiting) < timestampsAtOnceMax; {
			select {
			case next := <-p.timestamps:
				waiting = append(waiting, next)
			default:
				more = false
			}
		}
		got := p.timestampsOf(&stream, uint32(len(waiting)))
		for i, reply := range waiting {
			// PD names the last of the timestamps that it gave.
			reply <- timestamp{got.GetPhysical(), got.GetLogical() - int64(len(waiting)-1-i)}
		}
	}
}

func (p *placement) timestampsOf(stream *pdpb.PD_TsoClient, count uint32) *pdpb.Timestamp {
	for ; ; time.Sleep(placementRetryWait) {
		var err error
		if *stream == nil {
			if *stream, err = p.rpc.Tso(context.Background()); err != nil {
				*stream = nil
				continue
			}
		}
		err = (*stream).Send(&pdpb.TsoRequest{Header: p.header(), Count: count})
		if err == nil {
			var got *pdpb.TsoResponse
			if got, err = (*stream).Recv(); err == nil && got.GetHeader().GetError() == nil {
				return got.GetTimestamp()
			}
		}
		log.Printf("PD gave no timestamp: %v", err)
		*stream = nil
	}
}

// heartbeat tells PD that the store lives, and which regions it leads: PD forgets that when it restarts.
func (p *placement) heartbeat(stats *pdpb.StoreStats, led []*metapb.Region) error {
	ctx, cancel := context.WithTimeout(context.Background(), placementCallTimeout)
	defer cancel()
	if _, err := p.rpc.StoreHeartbeat(ctx, &pdpb.StoreHeartbeatRequest{Header: p.header(), Stats: stats}); err != nil {
		return err
	}
	if p.regions == nil {
		stream, err := p.rpc.RegionHeartbeat(context.Background())
		if err != nil {
			return err
		}
		p.regions = stream
		go ignore(stream)
	}
	for _, region := range led {
		err := p.regions.Send(&pdpb.RegionHeartbeatRequest{Header: p.header(), Region: region, Leader: region.Peers[0],
			Term: regionTerm, ApproximateSize: regionSizeMiB, ApproximateKeys: regionKeys})
		if err != nil {
			p.regions = nil
			return err
		}
	}
	return nil
}

// ignore reads what PD would like to have moved, until the stream ends: nothing moves here.
func ignore(stream pdpb.PD_RegionHeartbeatClient) {
	for {
		if _, err := stream.Recv(); err != nil {
			return
		}
	}
}

// GetRegion and GetStore lead the detector of deadlocks to the store of the first region.
func (p *placement) GetRegion(ctx context.Context, key []byte, _ ...pd.GetRegionOption) (*pd.Region, error) {
	got, err := p.rpc.GetRegion(ctx, &pdpb.GetRegionRequest{Header: p.header(), RegionKey: key})
	if err != nil {
		return nil, err
	}
	return &pd.Region{Meta: got.GetRegion(), Leader: got.GetLeader()}, nil
}

func (p *placement) GetStore(ctx context.Context, id uint64) (*metapb.Store, error) {
	got, err := p.rpc.GetStore(ctx, &pdpb.GetStoreRequest{Header: p.header(), StoreId: id})
	return got.GetStore(), err
}

// leads says whether PD knows a leader for the region.
func (p *placement) leads(ctx context.Context, region uint64) (bool, error) {
	got, err := p.rpc.GetRegionByID(ctx, &pdpb.GetRegionByIDRequest{Header: p.header(), RegionId: region})
	return err == nil && got.GetLeader().GetStoreId() != 0, err
}

// GetGCSafePoint is the point in time before which nobody reads any more.
func (p *placement) GetGCSafePoint(ctx context.Context) (uint64, error) {
	got, err := p.rpc.GetGCSafePoint(ctx, &pdpb.GetGCSafePointRequest{Header: p.header()})
	return got.GetSafePoint(), err
}

// followSafePoint lets compactions remove old versions soon after PD was told that nobody reads them any more. unistore
// itself looks once a minute, which is too seldom for tests.
func followSafePoint(p *placement, store *tikv.MVCCStore) {
	for last := uint64(0); ; time.Sleep(safePointEvery) {
		ctx, cancel := context.WithTimeout(context.Background(), placementCallTimeout)
		point, err := p.GetGCSafePoint(ctx)
		cancel()
		if err == nil && point > last {
			last = point
			store.UpdateSafePoint(point)
		}
	}
}
