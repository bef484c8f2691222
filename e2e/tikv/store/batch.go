package main

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	methodPrefix = "/tikvpb.Tikv/"
	// answersMax is how many answers go into one message, and answersWaiting how many may wait for one.
	answersMax     = 128
	answersWaiting = 1024
)

// answered is what became of one request of a stream.
type answered struct {
	id       uint64
	response *tikvpb.BatchCommandsResponse_Response
	err      error
}

// BatchCommands takes many requests in one message, and answers each when it is done, together with those that are done
// at the same time. Each passes the same fail points as a single one. If one fails in the transport, so does the stream,
// as a connection would.
func (s *service) BatchCommands(stream tikvpb.Tikv_BatchCommandsServer) error {
	answers := make(chan answered, answersWaiting)
	sent := make(chan error, 1)
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() { sent <- send(ctx, stream, answers) }()
	received := make(chan error, 1)
	go func() { received <- s.receive(ctx, stream, answers) }()
	for {
		select {
		case err := <-sent:
			return err
		case err := <-received:
			if err != nil {
				return err
			}
			received = nil // The client asks nothing more; what it has asked is still answered.
		}
	}
}

// receive takes requests until the client ends the stream, and then waits until all are answered.
func (s *service) receive(ctx context.Context, stream tikvpb.Tikv_BatchCommandsServer, answers chan<- answered) error {
	var open sync.WaitGroup
	for {
		batch, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			open.Wait()
			close(answers)
			return nil
		}
		if err != nil {
			return err
		}
		for i, request := range batch.Requests {
			open.Add(1)
			go func() {
				defer open.Done()
				response, err := s.one(ctx, request)
				select {
				case answers <- answered{batch.RequestIds[i], response, err}:
				case <-ctx.Done():
				}
			}()
		}
	}
}

// send puts answers that are there into one message.
func send(ctx context.Context, stream tikvpb.Tikv_BatchCommandsServer, answers <-chan answered) error {
	for {
		batch := &tikvpb.BatchCommandsResponse{}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case first, more := <-answers:
			if !more {
				return nil
			}
			if err := add(batch, first); err != nil {
				return err
			}
		}
		for waiting := true; waiting && len(batch.Responses) < answersMax; {
			select {
			case next, more := <-answers:
				if !more {
					return stream.Send(batch)
				}
				if err := add(batch, next); err != nil {
					return err
				}
			default:
				waiting = false
			}
		}
		if err := stream.Send(batch); err != nil {
			return err
		}
	}
}

func add(batch *tikvpb.BatchCommandsResponse, next answered) error {
	batch.RequestIds = append(batch.RequestIds, next.id)
	batch.Responses = append(batch.Responses, next.response)
	return next.err
}

// one answers a request of a stream as if it had come by itself.
func (s *service) one(ctx context.Context, request *tikvpb.BatchCommandsRequest_Request) (*tikvpb.BatchCommandsResponse_Response, error) {
	wrapped := &tikvpb.BatchCommandsResponse_Response{}
	var err error
	switch command := request.Cmd.(type) {
	case *tikvpb.BatchCommandsRequest_Request_Get:
		answer := &tikvpb.BatchCommandsResponse_Response_Get{}
		answer.Get, err = single(s, ctx, "KvGet", command.Get, s.KvGet)
		wrapped.Cmd = answer
	case *tikvpb.BatchCommandsRequest_Request_BatchGet:
		answer := &tikvpb.BatchCommandsResponse_Response_BatchGet{}
		answer.BatchGet, err = single(s, ctx, "KvBatchGet", command.BatchGet, s.KvBatchGet)
		wrapped.Cmd = answer
	case *tikvpb.BatchCommandsRequest_Request_Scan:
		answer := &tikvpb.BatchCommandsResponse_Response_Scan{}
		answer.Scan, err = single(s, ctx, "KvScan", command.Scan, s.KvScan)
		wrapped.Cmd = answer
	case *tikvpb.BatchCommandsRequest_Request_Prewrite:
		answer := &tikvpb.BatchCommandsResponse_Response_Prewrite{}
		answer.Prewrite, err = single(s, ctx, "KvPrewrite", command.Prewrite, s.KvPrewrite)
		wrapped.Cmd = answer
	case *tikvpb.BatchCommandsRequest_Request_Commit:
		answer := &tikvpb.BatchCommandsResponse_Response_Commit{}
		answer.Commit, err = single(s, ctx, "KvCommit", command.Commit, s.KvCommit)
		wrapped.Cmd = answer
	case *tikvpb.BatchCommandsRequest_Request_BatchRollback:
		answer := &tikvpb.BatchCommandsResponse_Response_BatchRollback{}
		answer.BatchRollback, err = single(s, ctx, "KvBatchRollback", command.BatchRollback, s.KvBatchRollback)
		wrapped.Cmd = answer
	case *tikvpb.BatchCommandsRequest_Request_CheckTxnStatus:
		answer := &tikvpb.BatchCommandsResponse_Response_CheckTxnStatus{}
		answer.CheckTxnStatus, err = single(s, ctx, "KvCheckTxnStatus", command.CheckTxnStatus, s.KvCheckTxnStatus)
		wrapped.Cmd = answer
	default:
		err = status.Errorf(codes.Unimplemented, "the test store does not take %T in a stream", request.Cmd)
	}
	return wrapped, err
}

func single[Q, A any](s *service, ctx context.Context, kind string, request Q, handle func(context.Context, Q) (A, error)) (A, error) {
	var none A
	handler := func(ctx context.Context, request any) (any, error) { return handle(ctx, request.(Q)) }
	response, err := s.intercept(ctx, request, &grpc.UnaryServerInfo{FullMethod: methodPrefix + kind}, handler)
	if err != nil {
		return none, err
	}
	return response.(A), nil
}
