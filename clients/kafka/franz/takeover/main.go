// franz-go while brokers take over from each other: see ../../README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	bootstrap  = flag.String("bootstrap", "", "where the brokers are")
	topic      = flag.String("topic", "", "the topic to create")
	partitions = flag.Int("partitions", 3, "its partitions")
	paceMs     = flag.Float64("pace-ms", 10, "milliseconds between two records")
	stop       = flag.String("stop", "", "the file that says: enough")
	settings   = flag.String("settings", "quick", "quick, as docs/take-over.md says, or plain: the library's own")
)

const waitingMax = 2000

var lock sync.Mutex

func say(format string, arguments ...any) {
	lock.Lock()
	defer lock.Unlock()
	fmt.Fprintf(os.Stdout, format+"\n", arguments...)
}

func need(err error, what string) {
	if err != nil {
		say("e %s: %v", what, err)
		os.Exit(1)
	}
}

func client(options ...kgo.Opt) *kgo.Client {
	options = append(options, kgo.SeedBrokers(strings.Split(*bootstrap, ",")...))
	if *settings == "quick" {
		options = append(options, kgo.DialTimeout(time.Second), kgo.MetadataMinAge(250*time.Millisecond), kgo.AlwaysRetryEOF(),
			kgo.RetryBackoffFn(func(int) time.Duration { return 250 * time.Millisecond }))
	}
	made, err := kgo.NewClient(options...)
	need(err, "client")
	return made
}

func create(ctx context.Context) {
	c := client()
	defer c.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		request := kmsg.NewPtrCreateTopicsRequest()
		wanted := kmsg.NewCreateTopicsRequestTopic()
		wanted.Topic, wanted.NumPartitions, wanted.ReplicationFactor = *topic, int32(*partitions), 1
		request.Topics, request.TimeoutMillis = append(request.Topics, wanted), 30000
		response, err := request.RequestWith(ctx, c)
		if err == nil {
			err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
		}
		if err == nil || err == kerr.TopicAlreadyExists {
			return
		}
		if time.Now().After(deadline) {
			need(err, "create topic")
		}
	}
}

func write(ctx context.Context) {
	// Idempotence and acks from all are this library's defaults.
	options := []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5 * time.Millisecond), kgo.MaxBufferedRecords(waitingMax)}
	if *settings == "quick" {
		options = append(options, kgo.ProduceRequestTimeout(time.Second), kgo.RequestTimeoutOverhead(250*time.Millisecond))
	}
	c := client(options...)
	defer c.Close()
	due := time.Now()
	for number := 0; ; number++ {
		if _, err := os.Stat(*stop); err == nil {
			break
		}
		value := strconv.Itoa(number) + " " + strings.Repeat("x", number%97*10)
		record := &kgo.Record{Topic: *topic, Partition: int32(number % *partitions), Value: []byte(value)}
		c.Produce(ctx, record, func(r *kgo.Record, err error) {
			if err != nil {
				say("f %d -1 %d %v", r.Partition, number, err)
				return
			}
			say("a %d %d %d", r.Partition, r.Offset, number)
		})
		due = due.Add(time.Duration(*paceMs * float64(time.Millisecond)))
		if late := time.Now().Add(-100 * time.Millisecond); due.Before(late) {
			due = late
		}
		time.Sleep(time.Until(due))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	say("e flushed: %v", c.Flush(ctx))
}

func report(kind string, r *kgo.Record) {
	number, _, _ := strings.Cut(string(r.Value), " ")
	say("%s %d %d %s", kind, r.Partition, r.Offset, number)
}

func follow(ctx context.Context, ended chan struct{}) {
	defer close(ended)
	c := client(kgo.ConsumerGroup(*topic+".group"), kgo.ConsumeTopics(*topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(time.Second))
	committed := time.Now()
	for ctx.Err() == nil {
		c.PollRecords(ctx, 500).EachRecord(func(r *kgo.Record) { report("r", r) })
		if time.Since(committed) > time.Second {
			committed = time.Now()
			c.CommitOffsets(ctx, c.UncommittedOffsets(), nil)
		}
	}
	c.CloseAllowingRebalance()
}

func readAll(ctx context.Context) {
	c := client()
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	asked := kmsg.NewListOffsetsRequestTopic()
	asked.Topic = *topic
	from := map[int32]kgo.Offset{}
	for p := 0; p < *partitions; p++ {
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp = int32(p), -1
		asked.Partitions = append(asked.Partitions, part)
		from[int32(p)] = kgo.NewOffset().At(0)
	}
	request.Topics = append(request.Topics, asked)
	var response *kmsg.ListOffsetsResponse
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		var err error
		if response, err = request.RequestWith(ctx, c); err == nil {
			for _, p := range response.Topics[0].Partitions {
				if err == nil {
					err = kerr.ErrorForCode(p.ErrorCode)
				}
			}
		}
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			need(err, "list offsets")
		}
	}
	c.Close()
	left := int64(0)
	for _, p := range response.Topics[0].Partitions {
		left += p.Offset
	}
	c = client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{*topic: from}))
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	for left > 0 && ctx.Err() == nil {
		c.PollRecords(ctx, 1000).EachRecord(func(r *kgo.Record) {
			report("v", r)
			left--
		})
	}
	if left > 0 {
		say("e %d records were not read", left)
		return
	}
	say("done")
}

func main() {
	flag.Parse()
	ctx, cancel := context.WithCancel(context.Background())
	create(ctx)
	ended := make(chan struct{})
	go follow(ctx, ended)
	write(context.Background())
	time.Sleep(3 * time.Second)
	cancel()
	<-ended
	readAll(context.Background())
}
