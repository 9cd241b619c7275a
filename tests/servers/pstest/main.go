// Serves Google's own fake of Pub/Sub (cloud.google.com/go/pubsub/pstest) to the tests of this project.
//
// The fake knows topics, subscriptions and leases. What it lacks and this system relies on is added
// here as the service's reference documents it: a pull that waits for a message, delivery attempts and
// dead letters where the subscription has a dead-letter policy, and IAM's TestIamPermissions. A second
// address serves the same topics to callers without administrative rights. Each call is written down.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/pstest"
	emptypb "github.com/golang/protobuf/ptypes/empty"
	iam "google.golang.org/genproto/googleapis/iam/v1"
	pb "google.golang.org/genproto/googleapis/pubsub/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	maxRequestBytes = 10 << 20
	pullWait        = 20 * time.Second
	lookEvery       = 3 * time.Millisecond
)

// What publisher and subscriber roles allow (the service's page "Access control with IAM").
var dataCalls = map[string]bool{
	"Publish": true, "Pull": true, "StreamingPull": true, "Acknowledge": true, "ModifyAckDeadline": true,
	"TestIamPermissions": true,
}

var dataRights = map[string]bool{"pubsub.topics.publish": true, "pubsub.subscriptions.consume": true}

// fake answers as the service does where pstest does not.
type fake struct {
	*pstest.GServer
	ackDeadline int32
	mu          sync.Mutex
	attempts    map[string]int32
}

func (f *fake) CreateSubscription(ctx context.Context, s *pb.Subscription) (*pb.Subscription, error) {
	if s.AckDeadlineSeconds < 10 || s.AckDeadlineSeconds > 600 {
		return nil, status.Errorf(codes.InvalidArgument, "ack_deadline_seconds: %d", s.AckDeadlineSeconds)
	}
	if err := f.checkDeadLetters(ctx, s.DeadLetterPolicy); err != nil {
		return nil, err
	}
	asked := s.AckDeadlineSeconds
	if f.ackDeadline > 0 {
		s.AckDeadlineSeconds = f.ackDeadline // what pstest measures leases by, now and never again
	}
	made, err := f.GServer.CreateSubscription(ctx, s)
	if err == nil {
		made.AckDeadlineSeconds = asked
	}
	return made, err
}

func (f *fake) checkDeadLetters(ctx context.Context, policy *pb.DeadLetterPolicy) error {
	if policy == nil {
		return nil
	}
	if policy.MaxDeliveryAttempts < 5 || policy.MaxDeliveryAttempts > 100 {
		return status.Errorf(codes.InvalidArgument, "max_delivery_attempts: %d", policy.MaxDeliveryAttempts)
	}
	_, err := f.GetTopic(ctx, &pb.GetTopicRequest{Topic: policy.DeadLetterTopic})
	return err
}

// UpdateSubscription adds the dead-letter policy to what pstest can change.
func (f *fake) UpdateSubscription(ctx context.Context, req *pb.UpdateSubscriptionRequest) (*pb.Subscription, error) {
	var rest []string
	for _, path := range req.UpdateMask.Paths {
		if path != "dead_letter_policy" {
			rest = append(rest, path)
			continue
		}
		if err := f.checkDeadLetters(ctx, req.Subscription.DeadLetterPolicy); err != nil {
			return nil, err
		}
		name := &pb.GetSubscriptionRequest{Subscription: req.Subscription.Name}
		stored, err := f.GetSubscription(ctx, name)
		if err != nil {
			return nil, err
		}
		stored.DeadLetterPolicy = req.Subscription.DeadLetterPolicy
	}
	req.UpdateMask.Paths = rest
	return f.GServer.UpdateSubscription(ctx, req)
}

// Pull waits until there is a message, as the service does; pstest answers after half a second.
func (f *fake) Pull(ctx context.Context, req *pb.PullRequest) (*pb.PullResponse, error) {
	once := &pb.PullRequest{
		Subscription: req.Subscription, MaxMessages: req.MaxMessages, ReturnImmediately: true,
	}
	for end := time.Now().Add(pullWait); ; time.Sleep(lookEvery) {
		answer, err := f.GServer.Pull(ctx, once)
		if err != nil {
			return nil, err
		}
		if answer, err = f.counted(ctx, req.Subscription, answer.ReceivedMessages); err != nil {
			return nil, err
		}
		if len(answer.ReceivedMessages) > 0 || time.Now().After(end) {
			return answer, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// counted states delivery attempts, and moves what came too often to the dead-letter topic.
func (f *fake) counted(ctx context.Context, name string, taken []*pb.ReceivedMessage) (*pb.PullResponse, error) {
	sub, err := f.GetSubscription(ctx, &pb.GetSubscriptionRequest{Subscription: name})
	if err != nil {
		return nil, err
	}
	policy := sub.DeadLetterPolicy
	if policy == nil {
		return &pb.PullResponse{ReceivedMessages: taken}, nil
	}
	answer := &pb.PullResponse{}
	for _, m := range taken {
		attempt := f.count(name + " " + m.AckId)
		if attempt <= policy.MaxDeliveryAttempts {
			answer.ReceivedMessages = append(answer.ReceivedMessages, &pb.ReceivedMessage{
				AckId: m.AckId, Message: m.Message, DeliveryAttempt: attempt,
			})
			continue
		}
		dead := &pb.PubsubMessage{Data: m.Message.Data, Attributes: m.Message.Attributes}
		_, err := f.Publish(ctx, &pb.PublishRequest{
			Topic: policy.DeadLetterTopic, Messages: []*pb.PubsubMessage{dead},
		})
		if err != nil {
			return nil, err
		}
		acks := &pb.AcknowledgeRequest{Subscription: name, AckIds: []string{m.AckId}}
		if _, err := f.Acknowledge(ctx, acks); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

func (f *fake) count(key string) int32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempts[key]++
	return f.attempts[key]
}

// DeleteTopic leaves subscriptions alone, as the service does; pstest would stop them.
func (f *fake) DeleteTopic(ctx context.Context, req *pb.DeleteTopicRequest) (*emptypb.Empty, error) {
	subs, err := f.ListTopicSubscriptions(ctx, &pb.ListTopicSubscriptionsRequest{Topic: req.Topic})
	if err == nil && len(subs.Subscriptions) > 0 {
		return nil, status.Error(codes.Unimplemented, "this fake deletes a topic after its subscriptions")
	}
	return f.GServer.DeleteTopic(ctx, req)
}

// door is one address: who comes through the data door has no administrative rights.
type door struct {
	iam.UnimplementedIAMPolicyServer
	fake  *fake
	data  bool
	calls *log.Logger
}

// TestIamPermissions answers nothing for what does not exist, and needs no right itself.
func (d *door) TestIamPermissions(
	ctx context.Context, req *iam.TestIamPermissionsRequest,
) (*iam.TestIamPermissionsResponse, error) {
	var err error
	if strings.Contains(req.Resource, "/subscriptions/") {
		_, err = d.fake.GetSubscription(ctx, &pb.GetSubscriptionRequest{Subscription: req.Resource})
	} else {
		_, err = d.fake.GetTopic(ctx, &pb.GetTopicRequest{Topic: req.Resource})
	}
	answer := &iam.TestIamPermissionsResponse{}
	for _, right := range req.Permissions {
		if err == nil && (!d.data || dataRights[right]) {
			answer.Permissions = append(answer.Permissions, right)
		}
	}
	return answer, nil
}

// unary writes a call down, refuses what the door does not allow, and outlives pstest's panics.
func (d *door) unary(
	ctx context.Context, req interface{}, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
) (answer interface{}, err error) {
	method := info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:]
	d.calls.Printf("%s %s", map[bool]string{true: "data", false: "admin"}[d.data], method)
	if d.data && !dataCalls[method] {
		return nil, status.Errorf(codes.PermissionDenied, "not authorised: %s", method)
	}
	defer func() {
		if fault := recover(); fault != nil {
			err = status.Errorf(codes.InvalidArgument, "%s: %v", method, fault)
		}
	}()
	return handle(ctx, req)
}

func (d *door) open() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(d.unary), grpc.MaxRecvMsgSize(maxRequestBytes))
	pb.RegisterPublisherServer(server, d.fake)
	pb.RegisterSubscriberServer(server, d.fake)
	iam.RegisterIAMPolicyServer(server, d)
	go func() { log.Fatal(server.Serve(listener)) }()
	return listener.Addr().String()
}

func main() {
	ackDeadline := flag.Int("ack-deadline", 0, "seconds of every lease, whatever a subscription asks for")
	calls := flag.String("calls", "/dev/null", "the file that calls are appended to")
	flag.Parse()
	pstest.SetMinAckDeadline(time.Second)
	file, err := os.OpenFile(*calls, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	logger := log.New(file, "", 0)
	server := pstest.NewServer()
	shared := &fake{
		GServer: &server.GServer, ackDeadline: int32(*ackDeadline), attempts: map[string]int32{},
	}
	admin := &door{fake: shared, calls: logger}
	data := &door{fake: shared, calls: logger, data: true}
	fmt.Println(admin.open(), data.open())
	// Ends with whoever started it: standard input closes.
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
	}
}
