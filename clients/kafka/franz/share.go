package main

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	sharedRecords   = 200
	sharePatience   = time.Minute
	groupResource   = 32
	sharePartitions = 2
)

// share reads a topic by a share group of two members: ../README.md says what.
func share(ctx context.Context, c *kgo.Client) {
	name, group := *topic+".shared", *topic+".share"
	creation := kmsg.NewPtrCreateTopicsRequest()
	wanted := kmsg.NewCreateTopicsRequestTopic()
	wanted.Topic, wanted.NumPartitions, wanted.ReplicationFactor = name, sharePartitions, 1
	creation.Topics, creation.TimeoutMillis = append(creation.Topics, wanted), 30000
	created, err := creation.RequestWith(ctx, c)
	need(err == nil && created.Topics[0].ErrorCode == 0, "create %s: %v", name, err)
	earliest := kmsg.NewPtrIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = groupResource, group
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value = "share.auto.offset.reset", kmsg.StringPtr("earliest")
	resource.Configs = append(resource.Configs, config)
	earliest.Resources = append(earliest.Resources, resource)
	altered, err := earliest.RequestWith(ctx, c)
	need(err == nil && altered.Resources[0].ErrorCode == 0, "configure %s: %v", group, err)
	writer := client(kgo.DefaultProduceTopic(name), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range sharedRecords {
		record := &kgo.Record{Partition: int32(i % sharePartitions), Key: key(i), Value: value(i)}
		writer.Produce(ctx, record, func(_ *kgo.Record, err error) { need(err == nil, "write %d: %v", i, err) })
	}
	need(writer.Flush(ctx) == nil, "the writer does not flush")
	writer.Close()

	members := []*kgo.Client{
		client(kgo.ShareGroup(group), kgo.ConsumeTopics(name)),
		client(kgo.ShareGroup(group), kgo.ConsumeTopics(name)),
	}
	done, released, rejected := map[int]bool{}, map[int]int32{}, 0
	judge := func(r *kgo.Record) {
		i, err := strconv.Atoi(strings.TrimPrefix(string(r.Key), "key-"))
		need(err == nil && bytes.Equal(r.Value, value(i)), "record %s has another value", r.Key)
		need(!done[i], "record %d came again", i)
		need(r.DeliveryCount() == released[i]+1, "record %d came for the time %d", i, r.DeliveryCount())
		switch {
		case i%50 == 7:
			done[i] = true
			rejected++
			r.Ack(kgo.AckReject)
		case i%10 == 3 && r.DeliveryCount() < 3:
			released[i]++
			r.Ack(kgo.AckRelease)
		default:
			done[i] = true
			r.Ack(kgo.AckAccept)
		}
	}
	for deadline := time.Now().Add(sharePatience); len(done) < sharedRecords; {
		need(time.Now().Before(deadline), "%d records are done with, no more come", len(done))
		for _, member := range members {
			polled, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			member.PollFetches(polled).EachRecord(judge)
			cancel()
			need(member.FlushAcks(ctx) == nil, "an acknowledgement is refused")
		}
	}
	need(rejected == 4 && len(released) == 20, "%d rejected, %d released", rejected, len(released))
	description := kmsg.NewPtrShareGroupDescribeRequest()
	description.GroupIDs = []string{group}
	described, err := description.RequestWith(ctx, c)
	need(err == nil && described.Groups[0].GroupState == "Stable" && len(described.Groups[0].Members) == 2, "the group is %+v, %v", described, err)
	for _, member := range members {
		member.Close()
	}
	offsets := kmsg.NewPtrDescribeShareGroupOffsetsRequest()
	asked := kmsg.NewDescribeShareGroupOffsetsRequestGroup()
	asked.GroupID = group
	offsets.Groups = append(offsets.Groups, asked)
	told, err := offsets.RequestWith(ctx, c)
	need(err == nil && told.Groups[0].ErrorCode == 0, "offsets of the group: %v", err)
	for _, partition := range told.Groups[0].Topics[0].Partitions {
		need(partition.StartOffset == sharedRecords/sharePartitions, "the group goes on at %d", partition.StartOffset)
	}
	for deadline := time.Now().Add(sharePatience); ; time.Sleep(100 * time.Millisecond) {
		deletion := kmsg.NewPtrDeleteGroupsRequest()
		deletion.Groups = []string{group}
		deleted, err := deletion.RequestWith(ctx, c)
		need(err == nil, "delete the group: %v", err)
		if deleted.Groups[0].ErrorCode == 0 {
			break
		}
		need(time.Now().Before(deadline), "delete the group: %v", kerr.ErrorForCode(deleted.Groups[0].ErrorCode))
	}
	removal := kmsg.NewPtrDeleteTopicsRequest()
	removal.TopicNames = []string{name}
	gone := kmsg.NewDeleteTopicsRequestTopic()
	gone.Topic = kmsg.StringPtr(name)
	removal.Topics = append(removal.Topics, gone)
	_, err = removal.RequestWith(ctx, c)
	need(err == nil, "delete %s: %v", name, err)
}
