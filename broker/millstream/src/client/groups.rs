//! Groups of all kinds: which there are, and who is in them.

use anyhow::{Context, Result, bail};
use millstream_protocol::{
    KString, Request,
    messages::{
        ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, DescribeShareGroupOffsetsRequest, ListGroupsRequest,
        ShareGroupDescribeRequest, StreamsGroupDescribeRequest,
        describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup, list_groups_response::ListedGroup,
        streams_group_describe_response as streams,
    },
};

use super::{
    kafka::{Kafka, check},
    offsets::Committed,
};

/// A group of any kind.
#[derive(Debug)]
pub struct GroupDescription {
    /// `classic`, `consumer`, `share` or `streams`.
    pub kind: String,
    /// Its state.
    pub state: String,
    /// How partitions are assigned, empty if nobody says.
    pub assignor: String,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group of any kind.
#[derive(Debug)]
pub struct GroupMember {
    /// Its id.
    pub id: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// Its client id.
    pub client: String,
    /// Where it connects from.
    pub host: String,
    /// What it reads or runs; `None` where only the members know.
    pub assignment: Option<String>,
}

impl Kafka {
    /// All groups.
    pub async fn groups(&mut self) -> Result<Vec<ListedGroup>> {
        let response = self
            .call_until_settled(&ListGroupsRequest::default(), |response| response.error_code)
            .await?;
        check(response.error_code, None, || "list groups".to_owned())?;
        let mut groups = response.groups;
        groups.sort_by(|a, b| a.group_id.as_str().cmp(b.group_id.as_str()));
        Ok(groups)
    }

    /// One group's state and members.
    pub async fn group(&mut self, group: &str) -> Result<GroupDescription> {
        let listed = self.groups().await?.into_iter().find(|listed| listed.group_id.as_str() == group);
        let Some(listed) = listed else {
            bail!("group {group} does not exist");
        };
        match listed.group_type.as_str() {
            "consumer" => self.consumer_group(group).await,
            "share" => self.share_group(group).await,
            "streams" => self.streams_group(group).await,
            _ => self.classic_group(group).await,
        }
    }

    /// What a request says of the one group that it names.
    async fn only<R: Request, G: Clone>(
        &mut self,
        group: &str,
        request: &R,
        groups: impl Fn(&R::Response) -> &Vec<G>,
        error: impl Fn(&G) -> (i16, Option<&KString>),
    ) -> Result<G> {
        let code = |response: &R::Response| groups(response).first().map_or(0, |described| error(described).0);
        let response = self.call_until_settled(request, code).await?;
        let described = groups(&response)
            .first()
            .with_context(|| format!("no answer about group {group}"))?;
        let (code, message) = error(described);
        check(code, message, || format!("group {group}"))?;
        Ok(described.clone())
    }

    async fn classic_group(&mut self, group: &str) -> Result<GroupDescription> {
        let request = DescribeGroupsRequest {
            groups: vec![group.into()],
            ..DescribeGroupsRequest::default()
        };
        let described = self
            .only(
                group,
                &request,
                |response| &response.groups,
                |group| (group.error_code, group.error_message.as_ref()),
            )
            .await?;
        let members = described.members.into_iter().map(|member| GroupMember {
            id: member.member_id.into(),
            instance: member.group_instance_id.map(String::from),
            client: member.client_id.into(),
            host: member.client_host.into(),
            assignment: None,
        });
        Ok(GroupDescription {
            kind: "classic".to_owned(),
            state: described.group_state.into(),
            assignor: described.protocol_data.into(),
            members: members.collect(),
        })
    }

    async fn consumer_group(&mut self, group: &str) -> Result<GroupDescription> {
        let request = ConsumerGroupDescribeRequest {
            group_ids: vec![group.into()],
            ..ConsumerGroupDescribeRequest::default()
        };
        let described = self
            .only(
                group,
                &request,
                |response| &response.groups,
                |group| (group.error_code, group.error_message.as_ref()),
            )
            .await?;
        let members = described.members.into_iter().map(|member| {
            let topics = member.assignment.topic_partitions.iter();
            GroupMember {
                assignment: Some(listed(topics.map(|topic| (&topic.topic_name, &topic.partitions[..], "")))),
                id: member.member_id.into(),
                instance: member.instance_id.map(String::from),
                client: member.client_id.into(),
                host: member.client_host.into(),
            }
        });
        Ok(GroupDescription {
            kind: "consumer".to_owned(),
            state: described.group_state.into(),
            assignor: described.assignor_name.into(),
            members: members.collect(),
        })
    }

    async fn share_group(&mut self, group: &str) -> Result<GroupDescription> {
        let request = ShareGroupDescribeRequest {
            group_ids: vec![group.into()],
            ..ShareGroupDescribeRequest::default()
        };
        let described = self
            .only(
                group,
                &request,
                |response| &response.groups,
                |group| (group.error_code, group.error_message.as_ref()),
            )
            .await?;
        let members = described.members.into_iter().map(|member| {
            let topics = member.assignment.topic_partitions.iter();
            GroupMember {
                assignment: Some(listed(topics.map(|topic| (&topic.topic_name, &topic.partitions[..], "")))),
                id: member.member_id.into(),
                instance: None,
                client: member.client_id.into(),
                host: member.client_host.into(),
            }
        });
        Ok(GroupDescription {
            kind: "share".to_owned(),
            state: described.group_state.into(),
            assignor: described.assignor_name.into(),
            members: members.collect(),
        })
    }

    async fn streams_group(&mut self, group: &str) -> Result<GroupDescription> {
        let request = StreamsGroupDescribeRequest {
            group_ids: vec![group.into()],
            ..StreamsGroupDescribeRequest::default()
        };
        let described = self
            .only(
                group,
                &request,
                |response| &response.groups,
                |group| (group.error_code, group.error_message.as_ref()),
            )
            .await?;
        let members = described.members.into_iter().map(|member| GroupMember {
            assignment: Some(tasks(&member.assignment)),
            id: member.member_id.into(),
            instance: member.instance_id.map(String::from),
            client: member.client_id.into(),
            host: member.client_host.into(),
        });
        Ok(GroupDescription {
            kind: "streams".to_owned(),
            state: described.group_state.into(),
            assignor: String::new(),
            members: members.collect(),
        })
    }

    /// Where a share group begins to read: what it does not need to be given again lies below.
    pub async fn share_offsets(&mut self, group: &str) -> Result<Committed> {
        let request = DescribeShareGroupOffsetsRequest {
            groups: vec![DescribeShareGroupOffsetsRequestGroup {
                group_id: group.into(),
                topics: None,
            }],
        };
        let described = self
            .only(
                group,
                &request,
                |response| &response.groups,
                |group| (group.error_code, group.error_message.as_ref()),
            )
            .await?;
        let mut offsets = Committed::new();
        for topic in described.topics {
            let known = topic.partitions.iter().filter(|partition| partition.start_offset >= 0);
            offsets.extend(known.map(|partition| ((topic.topic_name.to_string(), partition.partition_index), partition.start_offset)));
        }
        Ok(offsets)
    }

    /// Deletes a group that has no members, with its offsets.
    pub async fn delete_group(&mut self, group: &str) -> Result<()> {
        let request = DeleteGroupsRequest {
            groups_names: vec![group.into()],
        };
        let response = self
            .call_until_settled(&request, |response| response.results.first().map_or(0, |result| result.error_code))
            .await?;
        let result = response.results.first().with_context(|| format!("no answer about group {group}"))?;
        check(result.error_code, None, || format!("delete group {group}"))
    }
}

/// `orders:0,1 payments:2`, each with a note.
fn listed<'a>(items: impl Iterator<Item = (&'a KString, &'a [i32], &'static str)>) -> String {
    let one = |(name, partitions, note): (&KString, &[i32], &str)| {
        let partitions: Vec<String> = partitions.iter().map(i32::to_string).collect();
        format!("{}:{}{note}", name.as_str(), partitions.join(","))
    };
    items.map(one).collect::<Vec<_>>().join(" ")
}

/// Tasks by subtopology.
fn tasks(assignment: &streams::Assignment) -> String {
    let of = |tasks: &'_ [streams::TaskIds], note: &'static str| {
        let tasks = tasks.iter().map(|ids| (&ids.subtopology_id, &ids.partitions[..], note));
        listed(tasks)
    };
    let active = of(&assignment.active_tasks, "");
    let standby = of(&assignment.standby_tasks, " (standby)");
    [active, standby]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
